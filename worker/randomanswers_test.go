package worker

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// answering answers a path of kind, name and size in the way of its kind; each
// answer is told from all others.
func answering(f *os.File, random *rand.Rand) http.HandlerFunc {
	pauses := make([]time.Duration, 64) // made beforehand: handlers run at once
	for i := range pauses {
		pauses[i] = time.Duration(random.IntN(int(4 * time.Millisecond)))
	}
	return func(w http.ResponseWriter, r *http.Request) {
		part := strings.Split(r.URL.Path, "/")
		size, _ := strconv.Atoi(part[3])
		w.Header().Set("X-Name", part[2])
		switch part[1] {
		case "file":
			w.Header().Set("Content-Length", part[3])
			_, _ = io.Copy(w, io.NewSectionReader(f, 0, int64(size)))
			return
		case "sent": // by sendfile
			own, err := os.Open(f.Name())
			if err != nil {
				panic(err)
			}
			defer own.Close()
			w.Header().Set("Content-Length", part[3])
			_, _ = io.CopyN(w, own, int64(size))
			return
		case "slow":
			<-time.After(pauses[size%len(pauses)])
		case "hang":
			<-time.After(time.Minute)
		case "fail":
			panic(http.ErrAbortHandler)
		case "read":
			_, _ = io.CopyN(io.Discard, r.Body, int64(size))
		}
		body := nameOf(part[2], size)
		for len(body) > 0 {
			n := min(len(body), 1+size/3)
			_, _ = io.WriteString(w, body[:n])
			if body = body[n:]; size%3 == 0 {
				w.(http.Flusher).Flush()
			}
		}
	}
}

// nameOf is a body that nobody else has.
func nameOf(name string, size int) string {
	return strings.Repeat(name+" ", size/(len(name)+1)+1)[:size]
}

// expected is an answer, and whether it is the connection's last. Without a status
// it is the end of the connection.
type expected struct {
	status int
	name   string
	body   string
	last   bool
}

// randomAnswers makes a pipeline, with the answers that it gets.
func randomAnswers(random *rand.Rand, client string, content []byte) (input string, answers []expected) {
	for i := range 1 + random.IntN(8) {
		name, size := fmt.Sprintf("%s%d", client, i), random.IntN(1<<random.IntN(17))
		kind := []string{"memory", "memory", "file", "sent", "sent", "slow", "read", "hang", "bad", "fail"}[random.IntN(10)]
		want := expected{status: 200, name: name, body: nameOf(name, size)}
		lines, upload := "", ""
		switch kind {
		case "file", "sent":
			size += 33_000 // else it is copied
			want.body = string(content[:size])
		case "read":
			upload = nameOf("upload", random.IntN(1<<random.IntN(17)))
			lines = fmt.Sprintf("Content-Length: %d\r\n", len(upload))
			if random.IntN(2) == 0 {
				lines += "X-Stream: 1\r\n"
			}
		case "hang":
			want = expected{status: 503, body: unavailableText, last: true}
		case "fail":
			want = expected{last: true}
		case "bad":
			return input + "NONSENSE\r\n\r\n", append(answers, expected{status: 400, last: true})
		}
		method := map[bool]string{false: "GET", true: "POST"}[lines != ""]
		input += fmt.Sprintf("%s /%s/%s/%d HTTP/1.1\r\nHost: h\r\n%s\r\n%s", method, kind, name, size, lines, upload)
		if answers = append(answers, want); want.last {
			return input, answers
		}
	}
	return input, answers
}

// Answers of all kinds, to several clients with few places between them, through
// sockets that take little at a time: everybody gets his own, whole and in order,
// and in the end nothing is held.
func TestRandomAnswers(t *testing.T) {
	seeds := 200
	if raceDetector || testing.Short() {
		seeds = 30
	}
	content := noise(200_000)
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(uint64(seed), 1))
			change := func(o *Options) {
				o.MaxThreads, o.MaxFastInline = 1+random.IntN(3), 1+random.IntN(5)
				o.OutputMemory, o.BodyMemory = random.IntN(1<<random.IntN(18)), random.IntN(1<<random.IntN(15))
				o.OutputMemoryTotal = int64(random.IntN(1 << random.IntN(20)))
				o.OutputFile, o.OutputFileTotal = int64(random.IntN(1<<random.IntN(20))), 1<<30
				o.HandlerTimeout, o.BodyDirectory = 10*time.Second, t.TempDir()
				o.StreamRequest = func(r *http.Request) bool { return r.Header.Get("X-Stream") != "" }
				o.QueueRequests = random.IntN(5) > 0
				o.Timeouts = Timeouts{Linger: time.Second}
			}
			inBubble(t, answering(tempFile(t, content), random), change, func(t *testing.T, k *fakeKernel) {
				clients := 2 + random.IntN(3)
				if !k.options.QueueRequests {
					clients = min(clients, k.options.MaxThreads)
				}
				sockets, outputs := make([]*fakeSocket, clients), make([]strings.Builder, clients)
				unsent, answers := make([]string, clients), make([][]expected, clients)
				for i := range clients {
					unsent[i], answers[i] = randomAnswers(random, string(rune('a'+i)), content)
					sockets[i] = k.connect()
					sockets[i].setRoom(random.IntN(1000))
				}
				k.converse(random, sockets, unsent, outputs, func() {
					if random.IntN(10) == 0 {
						k.pass(time.Duration(random.IntN(int(20 * time.Millisecond))))
					}
				})
				for range 10 { // until those who hang have returned, on at most three places
					for i, c := range sockets {
						c.send(unsent[i])
						unsent[i] = ""
						c.take(-1)
					}
					k.pass(time.Minute)
				}
				for i := range clients {
					checkAnswers(t, outputs[i].String()+sockets[i].received(), answers[i])
				}
				if memory, files, lenders := k.heldMemory.Load(), k.heldFiles.Load(), k.loans.lenders.Load(); memory != 0 || files != 0 || lenders != 0 {
					t.Errorf("held: %d bytes in memory, %d in files, %d loans", memory, files, lenders)
				}
				if n := k.Stats().BusyThreads; n != 0 && k.options.QueueRequests {
					t.Errorf("%d places are busy", n)
				}
			})
		})
	}
}

func checkAnswers(t *testing.T, output string, answers []expected) {
	t.Helper()
	reader := bufio.NewReader(strings.NewReader(output))
	for i, want := range answers {
		if want.status == 0 { // nothing
			break
		}
		a, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatalf("answer %d of %d: %v", i, len(answers), err)
		}
		body, err := io.ReadAll(a.Body)
		if err != nil || a.StatusCode != want.status || a.Header.Get("X-Name") != want.name || want.body != "" && string(body) != want.body {
			t.Fatalf("answer %d: %d %q with %d bytes %q (%v), want %d %q with %d", i, a.StatusCode, a.Header.Get("X-Name"), len(body), clip(string(body)), err, want.status, want.name, len(want.body))
		}
		if a.Close != want.last {
			t.Errorf("answer %d says close: %v", i, a.Close)
		}
	}
	if rest, _ := io.ReadAll(reader); len(rest) > 0 {
		t.Errorf("behind the last answer: %q", clip(string(rest)))
	}
}
