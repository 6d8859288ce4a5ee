package worker

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Real connections and everything that may end a request at once: handlers'
// deadlines, bounds of the todo, streamed bodies, Hijack, clients that leave, and
// the end of the server. Whatever crosses: each request gets one answer, its own,
// in order, or none and the end of the connection; what is cut does not look
// whole; and what is counted adds up.
func TestRandomEnds(t *testing.T) {
	rounds := 24
	if raceDetector || testing.Short() {
		rounds = 10
	}
	for round := range rounds {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			random := rand.New(rand.NewPCG(uint64(round), 3))
			m := &mill{t: t, ending: make(chan struct{}), unit: time.Microsecond, kinds: append(kinds, "hijack")}
			m.ts = startServer(t, m.serve, func(o *Options) { m.choose(o, random) })
			defer m.helpers.Wait() // before the server's end nobody has to return
			var clients sync.WaitGroup
			for n := range 6 {
				clients.Go(func() { m.client(rand.New(rand.NewPCG(uint64(round), uint64(100+n))), n, 12) })
			}
			// Where most are refused many connections make few handlers run.
			some := func() bool { return m.ran.Load() > 30 || m.ts.Stats().Accepted > 40 }
			switch random.IntN(3) {
			case 0: // everybody is served
				clients.Wait()
			case 1:
				m.ts.until("some requests are served", some)
				close(m.ending)
				m.ts.wantShutdown(m.ts.shutdown())
			case 2:
				m.ts.until("some requests are served", some)
				close(m.ending)
				if err := m.ts.Close(); err != nil {
					t.Error(err)
				}
			}
			clients.Wait()
			m.helpers.Wait()
			m.ts.until("nobody is left", func() bool { // who has lost its client, or taken it, is in no place
				return m.ts.reactor.Size() == 0 && m.ts.Stats().BusyThreads == 0 && m.noted.Load() == m.ran.Load()
			})
			connections := m.ts.Stats().Connections
			m.ts.stop()
			m.checkCounts(connections)
		})
	}
}

var kinds = []string{"whole", "whole", "deaf", "pieces", "echo", "both", "abort"}

// mill is a server whose handlers do what their paths say.
type mill struct {
	t       *testing.T
	ts      *testServer
	files   string // where bodies and answers go
	kinds   []string
	unit    time.Duration // of pauses
	ending  chan struct{} // closed when the server is about to end
	helpers sync.WaitGroup
	ran     atomic.Int64 // handlers
	noted   atomic.Int64 // access records
	exits   atomic.Int64 // handlers that have ended their goroutines
}

func (m *mill) choose(o *Options, random *rand.Rand) {
	m.files = m.t.TempDir()
	o.MaxThreads, o.MaxFastInline = 1+random.IntN(3), 1+random.IntN(4)
	o.QueueRequests = random.IntN(4) > 0
	o.MaxBacklog = random.IntN(4)
	o.MaxQueueWait = time.Duration(random.IntN(3)) * time.Millisecond
	if random.IntN(3) > 0 {
		o.HandlerTimeout = 2 * time.Millisecond
	}
	o.BodyMemory, o.BodyDirectory = random.IntN(1<<random.IntN(15)), m.files
	o.OutputMemory = random.IntN(1 << random.IntN(18))
	o.OutputFile, o.OutputFileTotal = int64(random.IntN(1<<random.IntN(20))), 1<<30
	o.StreamRequest = func(r *http.Request) bool { return r.Header.Get("X-Stream") != "" }
	o.OnRequest = func(*AccessRecord) { m.noted.Add(1) }
	o.Timeouts.Linger = 20 * time.Millisecond
	if random.IntN(3) == 0 {
		o.Timeouts.BodyIdle = 5 * time.Millisecond
	}
}

const exitPath = "/exit"

// serve answers /kind/name/size/pause.
func (m *mill) serve(w http.ResponseWriter, r *http.Request) {
	m.ran.Add(1)
	if r.URL.Path == exitPath {
		m.exits.Add(1)
		runtime.Goexit()
	}
	part := strings.Split(r.URL.Path, "/")
	name := part[2]
	size, _ := strconv.Atoi(part[3])
	pause, _ := strconv.Atoi(part[4])
	w.Header().Set("X-Name", name)
	control := http.NewResponseController(w)
	wait := func() {
		select {
		case <-time.After(time.Duration(pause) * m.unit):
		case <-r.Context().Done():
		}
	}
	body := nameOf(name, size)
	switch part[1] {
	case "whole":
		wait()
		_, _ = io.WriteString(w, body)
	case "deaf": // does not heed its context
		<-time.After(time.Duration(pause) * m.unit)
		_, _ = io.WriteString(w, body)
	case "pieces":
		for len(body) > 0 {
			n := min(len(body), 1+size/3)
			_, _ = io.WriteString(w, body[:n])
			_ = control.Flush()
			body = body[n:]
			wait()
		}
	case "echo":
		if _, err := io.Copy(w, r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
	case "both": // reads on another goroutine, and may return before that
		m.helpers.Go(func() { _, _ = io.Copy(io.Discard, r.Body) })
		wait()
		_, _ = io.WriteString(w, body)
	case "abort":
		_, _ = io.WriteString(w, body[:size/2])
		if pause%2 == 0 {
			_ = control.Flush()
		}
		wait()
		panic(http.ErrAbortHandler)
	case "hijack":
		wait()
		if pause%3 == 0 {
			_, _ = io.CopyN(io.Discard, r.Body, int64(size/2))
		}
		m.hijack(control, name)
	}
}

// hijack answers with the first line that comes behind the request.
func (m *mill) hijack(control *http.ResponseController, name string) {
	conn, rw, err := control.Hijack()
	if err != nil {
		return // its time is over, or its client is gone
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	rest, err := io.ReadAll(rw)
	if err != nil {
		return
	}
	// Of a body that was left there may be something before it.
	line := rest[bytes.LastIndexByte(rest, '\n')+1:]
	fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nX-Name: %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", name, len(line), line)
}

// order is a request with the answer that it should get.
type order struct {
	kind, name, body string
}

// orders makes a pipeline. A hijack is its last request.
func (m *mill) orders(random *rand.Rand, client string) (input string, list []order) {
	for i := range 1 + random.IntN(6) {
		kind := m.kinds[random.IntN(len(m.kinds))]
		name, size, pause := fmt.Sprintf("%s.%d", client, i), 1+random.IntN(1<<random.IntN(18)), random.IntN(4000)
		want := order{kind, name, nameOf(name, size)}
		lines, upload := "", ""
		if kind == "echo" || kind == "both" || random.IntN(4) == 0 {
			upload = nameOf("upload-"+name, random.IntN(1<<random.IntN(17)))
			if kind == "echo" {
				want.body = upload
			}
			if lines = fmt.Sprintf("Content-Length: %d\r\n", len(upload)); random.IntN(3) == 0 {
				lines, upload = "Transfer-Encoding: chunked\r\n", chunks(upload)
			}
			if random.IntN(2) == 0 {
				lines += "X-Stream: 1\r\n"
			}
		}
		input += fmt.Sprintf("POST /%s/%s/%d/%d HTTP/1.1\r\nHost: h\r\n%s\r\n%s", kind, name, size, pause, lines, upload)
		if kind == "hijack" {
			want.body = "behind " + name
			return input + "\n" + want.body, append(list, want)
		}
		list = append(list, want)
	}
	return input, list
}

// client makes so many connections, one after the other.
func (m *mill) client(random *rand.Rand, number, connections int) {
	for i := range connections {
		conn, err := net.Dial("tcp", m.ts.addr)
		if err != nil {
			m.wantEnding(err)
			return
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		input, list := m.orders(random, fmt.Sprintf("%d.%d", number, i))
		leaves := random.IntN(4) == 0
		if leaves && random.IntN(2) == 0 {
			input = input[:random.IntN(len(input))]
		}
		sent := make(chan struct{})
		seed := random.Uint64()
		go func() {
			defer close(sent)
			sendInPieces(rand.New(rand.NewPCG(seed, 0)), conn.(*net.TCPConn), input)
		}()
		if !leaves {
			m.read(conn, list, m.wantEnding)
		} else {
			_, _ = io.CopyN(io.Discard, conn, int64(random.IntN(1<<random.IntN(16))))
			if random.IntN(2) == 0 {
				_ = conn.(*net.TCPConn).SetLinger(0)
			}
		}
		conn.Close()
		<-sent
	}
}

// sendInPieces sends all, and the end of it.
func sendInPieces(random *rand.Rand, conn *net.TCPConn, input string) {
	for len(input) > 0 {
		n := min(len(input), 1+random.IntN(1<<random.IntN(18)))
		if _, err := io.WriteString(conn, input[:n]); err != nil {
			return // there may be answers all the same
		}
		if input = input[n:]; random.IntN(8) == 0 {
			<-time.After(time.Duration(random.IntN(2000)) * time.Microsecond)
		}
	}
	_ = conn.CloseWrite()
}

// read takes the answers. missing is told of those that do not come, or not
// whole, though their handlers have not cut them.
func (m *mill) read(from io.Reader, list []order, missing func(error)) {
	reader := bufio.NewReader(from)
	for i, want := range list {
		a, err := http.ReadResponse(reader, nil)
		if err != nil {
			// Nothing, where nothing was promised.
			if want.kind != "abort" && want.kind != "echo" && want.kind != "hijack" || os.IsTimeout(err) {
				missing(fmt.Errorf("answer %d of %d (%s): %w", i, len(list), want.kind, err))
			}
			return
		}
		body, err := io.ReadAll(a.Body)
		name := a.Header.Get("X-Name")
		switch {
		case a.StatusCode == 408 && name == "": // a very busy machine, or BodyIdle
			if err != nil || !a.Close {
				missing(fmt.Errorf("%s: 408, close %t: %w", want.name, a.Close, err))
				return
			}
		case a.StatusCode == 503 && name == "":
			if err != nil || string(body) != unavailableText {
				missing(fmt.Errorf("%s: 503 %q: %w", want.name, clip(string(body)), err))
			}
			if want.kind == "hijack" && !a.Close {
				return // what is behind it is no request
			}
		case a.StatusCode != 200 || name != want.name || !strings.HasPrefix(want.body, string(body)):
			m.t.Errorf("%s %s: answer %d of %d: %d %q %q (%v), want %q", want.kind, want.name, i, len(list), a.StatusCode, name, clip(string(body)), err, clip(want.body))
			return
		case err != nil:
			if want.kind != "abort" && want.kind != "echo" || os.IsTimeout(err) {
				missing(fmt.Errorf("%s %s: cut after %d of %d: %w", want.kind, want.name, len(body), len(want.body), err))
			}
			return
		case len(body) != len(want.body) || want.kind == "abort":
			m.t.Errorf("%s %s: %d of %d bytes look whole", want.kind, want.name, len(body), len(want.body))
			return
		}
		if a.Close {
			break
		}
	}
	if rest, err := io.ReadAll(reader); len(rest) > 0 || os.IsTimeout(err) {
		m.t.Errorf("behind the last answer: %q, %v", clip(string(rest)), err)
	}
}

// wantEnding: this happens only to those who are there when the server ends.
func (m *mill) wantEnding(err error) {
	select {
	case <-m.ending:
	default:
		m.t.Error(err)
	}
}

func (m *mill) checkCounts(connections map[string]int) {
	for state, n := range connections {
		if n != 0 {
			m.t.Errorf("%d connections are %s", n, state)
		}
	}
	st := m.ts.Stats()
	var answers uint64
	for _, n := range st.Statuses {
		answers += n
	}
	refused := st.Overload["backlog"] + st.Overload["age"]
	ran, noted := m.ran.Load(), m.noted.Load()
	if st.RequestsCount != uint64(ran) || noted != ran || answers-refused+st.Hijacked != uint64(ran) {
		m.t.Errorf("%d requests, %d handlers, %d records; %d answers, %d of them refusals, and %d hijacked", st.RequestsCount, ran, noted, answers, refused, st.Hijacked)
	}
	if st.HeldMemory != 0 || st.HeldFiles != 0 || st.HeldBodies != 0 || m.ts.loans.lenders.Load() != 0 || st.Panics != uint64(m.exits.Load()) || st.Backlog != 0 {
		m.t.Errorf("held: %d lenders, %+v", m.ts.loans.lenders.Load(), st)
	}
	if left, err := os.ReadDir(m.files); err != nil || len(left) > 0 {
		m.t.Errorf("files are left: %v, %v", left, err)
	}
	for _, line := range m.ts.logs.all() {
		if strings.Contains(line.message, "internal") || strings.Contains(line.message, "panicked") && line.attrs["path"] != exitPath {
			m.t.Errorf("logged: %s %v", line.message, line.attrs)
		}
	}
	m.t.Logf("%d handlers, %d hijacked, %d late, refused %v, statuses %v", ran, st.Hijacked, st.HandlerTimeouts, st.Overload, st.Statuses)
}
