package worker

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A handler that waits for a streamed body at its deadline loses client and
// body, whoever reads.
func TestHandlerTimeoutOfAStream(t *testing.T) {
	for name, test := range map[string]struct {
		path string
		due  time.Duration
	}{
		"handler reads": {"/reads", lateRetry},
		"another reads": {"/helper", lateRetry},
		"nobody reads":  {"/waits", 0},
	} {
		t.Run(name, func(t *testing.T) {
			var h *lateTest
			handler := func(_ *lateTest, w http.ResponseWriter, r *http.Request) {
				read := func() {
					_, err := io.ReadAll(r.Body)
					h.results <- err
				}
				switch r.URL.Path {
				case "/reads":
					read()
				case "/helper":
					go read()
				case "/next":
					hello(w, r)
					return
				}
				<-h.gate
				_, err := io.WriteString(w, "late")
				h.results <- err
				_, err = r.Body.Read(make([]byte, 10))
				h.results <- err
			}
			inLateBubble(t, streaming, handler, func(t *testing.T, k *fakeKernel, late *lateTest) {
				h = late
				c := k.connect()
				start := time.Now()
				c.send("POST " + test.path + " HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n123")
				k.pass(9 * time.Second)
				c.send("456")
				k.pass(time.Second + lateRetry)
				c.wantLate503()
				if took := c.state().answeredAt.Sub(start); took < 10*time.Second || took > 10*time.Second+test.due {
					t.Errorf("answered after %v", took)
				}
				k.pass(time.Minute)
				if state := c.state(); state.closedAt.IsZero() || state.reset {
					t.Errorf("closed at %v, reset %v", state.closedAt, state.reset)
				}
				h.release()
				close(h.results)
				for err := range h.results {
					if err != http.ErrHandlerTimeout {
						t.Errorf("after the deadline: %v", err)
					}
				}
				next := k.connect()
				next.send(getPath("/next"))
				next.want200("Hello, World!")
				if stats := k.Stats(); stats.HandlerTimeouts != 1 || stats.Statuses["5xx"] != 1 || stats.BusyThreads != 0 {
					t.Errorf("HandlerTimeouts %d, Statuses %v, BusyThreads %d", stats.HandlerTimeouts, stats.Statuses, stats.BusyThreads)
				}
			})
		})
	}
}

// A stream whose answer has begun goes on both ways.
func TestHandlerTimeoutOfABegunStream(t *testing.T) {
	handler := func(h *lateTest, w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "got: ")
		_ = http.NewResponseController(w).Flush()
		_, err := io.Copy(w, r.Body)
		h.results <- err
	}
	inLateBubble(t, streaming, handler, func(t *testing.T, k *fakeKernel, h *lateTest) {
		c := k.connect()
		c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nabc")
		k.pass(time.Hour)
		c.send("def")
		if body, _ := cutAnswer(t, c.received()); body != "got: abcdef" {
			t.Errorf("body %q", body)
		}
		if err := <-h.results; err != nil {
			t.Errorf("Copy: %v", err)
		}
		if n := k.Stats().HandlerTimeouts; n != 1 {
			t.Errorf("HandlerTimeouts %d", n)
		}
	})
}

// A part of a file belongs to the answer before: the 503 comes behind it, or,
// when the handler has returned meanwhile, just the end.
func TestHandlerTimeoutBehindAFile(t *testing.T) {
	const size = 40_000
	path := t.TempDir() + "/file"
	if err := os.WriteFile(path, []byte(strings.Repeat("f", size)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, returns := range map[string]bool{"hangs": false, "returns": true} {
		t.Run(name, func(t *testing.T) {
			handler := func(h *lateTest, w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/file" {
					http.ServeFile(w, r, path)
					return
				}
				<-h.gate
				if !returns {
					h.results <- errors.New("returned")
				}
			}
			inLateBubble(t, nil, handler, func(t *testing.T, k *fakeKernel, h *lateTest) {
				c := k.connect()
				c.setRoom(size - 1000)
				c.send(getPath("/file") + getPath("/hang"))
				k.pass(20 * time.Second)
				if n := k.Stats().HandlerTimeouts; n != 1 {
					t.Errorf("HandlerTimeouts %d", n)
				}
				if returns {
					h.release()
				}
				c.take(-1)
				k.pass(time.Second)
				body, rest := cutAnswer(t, c.received())
				if body != strings.Repeat("f", size) || c.state().shutAt.IsZero() {
					t.Errorf("%d bytes of the file, shut down at %v", len(body), c.state().shutAt)
				}
				if returns && rest != "" || !returns && !strings.HasPrefix(rest, "HTTP/1.1 503 ") {
					t.Errorf("behind the file: %q", rest)
				}
			})
		})
	}
}

// A streamed request that is refused: what comes of its body is thrown away, if
// that is not too much.
func TestRefusedStream(t *testing.T) {
	for name, test := range map[string]struct {
		head string
		kept bool
	}{
		"short":    {"Content-Length: 10\r\n\r\n12345", true},
		"chunked":  {"Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n", false}, // nobody knows how much comes
		"long":     {"Content-Length: 10000000\r\n\r\n12345", false},
		"continue": {"Content-Length: 10\r\nExpect: 100-continue\r\n\r\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			change := func(o *Options) {
				streaming(o)
				o.MaxBacklog, o.MaxQueueWait = 1, time.Second
			}
			inCrowd(t, change, []string{"/hang"}, func(t *testing.T, k *fakeKernel, h *stuck) {
				k.connect().send(getPath("/hang"))
				late, full := k.connect(), k.connect()
				late.send("POST /late HTTP/1.1\r\nHost: h\r\n" + test.head)
				full.send("POST /full HTTP/1.1\r\nHost: h\r\n" + test.head)
				k.pass(time.Second)
				h.release("/hang")
				synctest.Wait()
				for _, c := range []*fakeSocket{late, full} {
					got := c.received()
					if !strings.HasPrefix(got, "HTTP/1.1 503 ") || strings.Contains(got, "Connection: close") == test.kept || strings.Contains(got, "100 Continue") {
						t.Errorf("answer %q", got)
					}
					if !test.kept {
						if c.state().shutAt.IsZero() {
							t.Error("the connection goes on")
						}
						continue
					}
					c.send("67890" + getPath("/next"))
					c.want200("/next")
				}
				if stats := k.Stats(); stats.Overload["age"] != 1 || stats.Overload["backlog"] != 1 {
					t.Errorf("Overload %v", stats.Overload)
				}
			})
		})
	}
}

// Streams that are read, written, left and ended just when their handler's time
// is over. (The race detector looks on.)
func TestHandlerTimeoutRacesOfStreams(t *testing.T) {
	const clients, rounds = 8, 60
	const timeout = 2 * time.Millisecond
	var helpers sync.WaitGroup
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path[1] {
		case 'a': // echoes
			_, _ = io.Copy(w, r.Body)
		case 'b': // reads all, then answers
			body, err := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s%v", body, err)
		case 'c': // somebody else reads
			helpers.Go(func() { _, _ = io.ReadAll(r.Body) })
			<-r.Context().Done()
		case 'd': // flushes
			_, _ = io.WriteString(w, "d")
			_ = http.NewResponseController(w).Flush()
			_, _ = io.Copy(w, r.Body)
		case 'e': // takes the connection
			<-time.After(timeout)
			if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				conn.Close()
			}
		}
	}, func(o *Options) { o.HandlerTimeout, o.MaxThreads = timeout, 6 }, streaming)
	var done sync.WaitGroup
	for n := range clients {
		done.Go(func() {
			for i := range rounds {
				conn, err := net.Dial("tcp", ts.addr)
				if err != nil {
					t.Error(err)
					return
				}
				_ = conn.SetDeadline(time.Now().Add(patience))
				fmt.Fprintf(conn, "POST /%c HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 10\r\n\r\n12345", 'a'+(n+i)%5)
				<-time.After(timeout * time.Duration(i%4) / 2)
				_, _ = io.WriteString(conn, "67890")
				raw, err := io.ReadAll(conn)
				if count := strings.Count(string(raw), "HTTP/1.1 "); count != 1 {
					t.Errorf("%d answers in %q, %v", count, clip(string(raw)), err)
				}
				conn.Close()
			}
		})
	}
	done.Wait()
	helpers.Wait()
	ts.until("all places are free", func() bool { return ts.Stats().BusyThreads == 0 && ts.reactor.Size() == 0 })
	t.Logf("%d handlers too late of %d", ts.Stats().HandlerTimeouts, clients*rounds)
}
