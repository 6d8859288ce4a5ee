package worker

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// echo answers with the body, repeated as often as the query says, in pieces of
// the size that it says.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(err)
	}
	times, _ := strconv.Atoi(r.FormValue("times"))
	piece, _ := strconv.Atoi(r.FormValue("piece"))
	all := r.URL.Path + strings.Repeat(string(body), times)
	for len(all) > 0 {
		n := min(len(all), max(piece, 1))
		if _, err := io.WriteString(w, all[:n]); err != nil {
			return
		}
		if all = all[n:]; piece%7 == 0 {
			w.(http.Flusher).Flush()
		}
	}
}

// script is a pipeline of requests, with the answers that it must get.
type script struct {
	input   string
	methods []string
	bodies  []string
}

// randomScript makes requests of all kinds that echo serves.
func randomScript(random *rand.Rand, name string) (s script) {
	var input strings.Builder
	for i := range 1 + random.IntN(12) {
		method, path := "GET", fmt.Sprintf("/%s-%d", name, i)
		body := pattern(random.IntN(1 + 1<<random.IntN(15)))
		times := random.IntN(4)
		lines := ""
		for range random.IntN(12) {
			lines += fmt.Sprintf("X-%c: %s\r\n", 'a'+random.IntN(26), pattern(random.IntN(200)))
		}
		framed := ""
		switch random.IntN(5) {
		case 0:
			body = ""
		case 1:
			method, framed = "HEAD", "\r\n"
			body = ""
		case 2:
			lines += "Transfer-Encoding: chunked\r\nTrailer: X-T\r\n"
			method, framed = "PUT", "\r\n"+strings.TrimSuffix(chunks(body), "\r\n")+"X-T: 1\r\n\r\n"
		default:
			if random.IntN(4) == 0 {
				lines += "Expect: 100-continue\r\n"
			}
			lines += fmt.Sprintf("Content-Length: %d\r\n", len(body))
			method, framed = "POST", "\r\n"+body
		}
		if framed == "" {
			framed = "\r\n"
		}
		fmt.Fprintf(&input, "%s %s?times=%d&piece=%d HTTP/1.1\r\nHost: h\r\n%s%s", method, path, times, 1+random.IntN(1<<random.IntN(15)), lines, framed)
		s.methods = append(s.methods, method)
		want := path + strings.Repeat(body, times)
		if method == "HEAD" {
			want = ""
		}
		s.bodies = append(s.bodies, want)
	}
	s.input = input.String()
	return s
}

// check reads all answers, and whatever comes between them.
func (s *script) check(t *testing.T, output string) {
	t.Helper()
	c := &client{t: t, reader: bufio.NewReader(strings.NewReader(output))}
	for i, want := range s.bodies {
		a := c.answerTo(s.methods[i])
		for a.StatusCode == http.StatusContinue {
			a = c.answerTo(s.methods[i])
		}
		if a.StatusCode != 200 || a.body != want || a.err != nil {
			t.Fatalf("answer %d: %d %q (%v), want %q", i, a.StatusCode, clip(a.body), a.err, clip(want))
		}
	}
	if rest, _ := io.ReadAll(c.reader); len(rest) > 0 {
		t.Fatalf("behind the last answer: %q", clip(string(rest)))
	}
}

// converse has clients send what is unsent, and take what they get, in pieces of
// any size, until nothing happens any more. pause is called between two pieces.
func (k *fakeKernel) converse(random *rand.Rand, clients []*fakeSocket, unsent []string, outputs []strings.Builder, pause func()) {
	for quiet := 0; quiet < 30; quiet++ { // rounds in which nothing happened
		for i, c := range clients {
			if n := min(len(unsent[i]), random.IntN(1+1<<random.IntN(17))); n > 0 {
				c.send(unsent[i][:n])
				unsent[i] = unsent[i][n:]
			}
			c.take(random.IntN(1 << random.IntN(17)))
			pause()
			got := c.received()
			outputs[i].WriteString(got)
			if got != "" || unsent[i] != "" && c.state().closedAt.IsZero() {
				quiet = 0
			}
		}
	}
}

// However the bytes of several clients come, and however little of the answers
// their sockets take at a time: everybody gets the right ones.
func TestRandomPieces(t *testing.T) {
	seeds := 150
	if raceDetector || testing.Short() {
		seeds = 30
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(uint64(seed), 0))
			change := func(o *Options) {
				o.MaxThreads, o.MaxFastInline = 1+random.IntN(3), 1+random.IntN(5)
				o.OutputMemory, o.BodyMemory = random.IntN(1<<random.IntN(18)), random.IntN(1<<random.IntN(15))
				o.QueueRequests = random.IntN(5) > 0
				o.BodyMemoryTotal = int64(random.IntN(2)) << 20
			}
			inBubble(t, echo, change, func(t *testing.T, k *fakeKernel) {
				clients := 1 + random.IntN(3)
				if !k.options.QueueRequests {
					clients = min(clients, k.options.MaxThreads)
				}
				scripts, sockets := make([]script, clients), make([]*fakeSocket, clients)
				outputs, unsent := make([]strings.Builder, clients), make([]string, clients)
				for i := range clients {
					scripts[i] = randomScript(random, string(rune('a'+i)))
					sockets[i], unsent[i] = k.connect(), scripts[i].input
					sockets[i].setRoom(random.IntN(1000))
				}
				k.converse(random, sockets, unsent, outputs, func() {
					if random.IntN(20) == 0 {
						k.pass(time.Duration(random.IntN(int(time.Second))))
					}
				})
				for i := range clients {
					scripts[i].check(t, outputs[i].String())
				}
				if stats := k.Stats(); stats.BusyThreads > 0 && k.options.QueueRequests || len(stats.WriteErrors)+len(stats.ParseErrors) > 0 || stats.Panics > 0 {
					t.Errorf("stats %+v", stats)
				}
			})
		})
	}
}

// Real connections that do everything a client can do, until the server is
// shut down in the middle of it. Nobody gets a wrong answer, nothing is left,
// and the race detector has seen it.
func TestChaos(t *testing.T) {
	for round := range 3 {
		modes(t, func(t *testing.T, mode func(*Options)) {
			ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/hijack":
					if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
						_, _ = io.WriteString(conn, "hijacked")
						conn.Close()
					}
				case "/panic":
					panic(http.ErrAbortHandler)
				default:
					echo(w, r)
				}
			}, mode, func(o *Options) {
				o.MaxThreads, o.MaxFastInline, o.OutputMemory, o.BodyMemory = 8, 3, 50_000, 1000
				o.BodyMemoryTotal = 1 << 20
				o.Timeouts.Linger = 50 * time.Millisecond
			})
			var done sync.WaitGroup
			stopping := make(chan struct{})
			for n := range 6 {
				done.Go(func() {
					random := rand.New(rand.NewPCG(uint64(round), uint64(n)))
					for range 40 {
						conn, err := net.Dial("tcp", ts.addr)
						if err != nil {
							return // the listener is closed
						}
						misbehave(t, random, conn, stopping)
						conn.Close()
					}
				})
			}
			ts.until("some requests are served", func() bool { return ts.Stats().RequestsCount > uint64(100*(round+1)) || ts.Stats().Accepted >= 240 })
			close(stopping)
			if round%2 == 0 {
				ts.wantShutdown(ts.shutdown())
			}
			ts.stop()
			done.Wait()
			for _, line := range ts.logs.all() {
				if strings.Contains(line.message, "internal") || strings.Contains(line.message, "panicked") {
					t.Errorf("logged: %s %v", line.message, line.attrs)
				}
			}
		})
	}
}

// misbehave does one of the things that clients do. Once the server is being
// stopped answers may be missing, but they are never wrong.
func misbehave(t *testing.T, random *rand.Rand, conn net.Conn, stopping chan struct{}) {
	_ = conn.SetDeadline(time.Now().Add(patience))
	s := randomScript(random, "chaos")
	switch random.IntN(6) {
	case 0: // leaves in the middle of sending
		_, _ = io.WriteString(conn, s.input[:random.IntN(len(s.input))])
		return
	case 1: // resets in the middle of reading
		go func() {
			_, _ = io.WriteString(conn, s.input)
			_ = conn.(*net.TCPConn).CloseWrite()
		}()
		_, _ = io.CopyN(io.Discard, conn, int64(random.IntN(2000)))
		_ = conn.(*net.TCPConn).SetLinger(0)
		return
	case 2:
		_, _ = io.WriteString(conn, getPath([]string{"/hijack", "/panic"}[random.IntN(2)]))
		_, _ = io.Copy(io.Discard, conn)
		return
	case 3:
		go func() { _, _ = io.WriteString(conn, s.input+"NONSENSE\r\n\r\n") }()
		_, _ = io.Copy(io.Discard, conn)
		return
	}
	go func() {
		_, _ = io.WriteString(conn, s.input)
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	reader := bufio.NewReader(conn)
	for i := 0; i < len(s.bodies); {
		a, err := http.ReadResponse(reader, &http.Request{Method: s.methods[i]})
		var body []byte
		if err == nil {
			body, err = io.ReadAll(a.Body)
		}
		if err != nil {
			select {
			case <-stopping:
			default:
				t.Errorf("answer %d of %d: %v", i, len(s.bodies), err)
			}
			return
		}
		if a.StatusCode == http.StatusContinue {
			continue
		}
		if a.StatusCode != 200 || string(body) != s.bodies[i] {
			t.Errorf("answer %d: %d %q, want %q", i, a.StatusCode, clip(string(body)), clip(s.bodies[i]))
			return
		}
		i++
	}
}
