package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// lateTest is what the handler of a test and the test tell each other; made
// inside the bubble.
type lateTest struct {
	gate    chan struct{} // hanging handlers return when it is closed
	results chan error    // of what they tried
}

// inLateBubble runs a test in a bubble with one place and a handler's deadline
// of ten seconds.
func inLateBubble(t *testing.T, change func(*Options), handler func(h *lateTest, w http.ResponseWriter, r *http.Request), test func(t *testing.T, k *fakeKernel, h *lateTest)) {
	t.Helper()
	var h *lateTest
	limited := func(o *Options) {
		o.MaxThreads, o.HandlerTimeout = 1, 10*time.Second
		o.Timeouts = Timeouts{Linger: 2 * time.Second, Idle: 100 * time.Hour, AdvertisedIdle: 65 * time.Second}
		if change != nil {
			change(o)
		}
	}
	inBubble(t, func(w http.ResponseWriter, r *http.Request) { handler(h, w, r) }, limited, func(t *testing.T, k *fakeKernel) {
		h = &lateTest{gate: make(chan struct{}), results: make(chan error, 100)}
		defer h.release()
		test(t, k, h)
	})
}

func (h *lateTest) release() {
	select {
	case <-h.gate:
	default:
		close(h.gate)
	}
	synctest.Wait()
}

// hangThere is a function that shows in a stack.
//
//go:noinline
func hangThere(h *lateTest) { <-h.gate }

// hangs is a handler that heeds nothing; other paths than /hang are served.
func hangs(h *lateTest, w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/hang") {
		hangThere(h)
		_, err := io.WriteString(w, "too late")
		h.results <- err
		return
	}
	_, _ = io.WriteString(w, r.URL.Path)
}

// wantLate503 checks the last answer of a client, and the end behind it.
func (c *fakeSocket) wantLate503() {
	c.kernel.t.Helper()
	got := c.received()
	if !strings.HasPrefix(got, "HTTP/1.1 503 Service Unavailable\r\n") || !strings.Contains(got, "\r\nConnection: close\r\n") ||
		!strings.Contains(got, "\r\nContent-Type: text/plain; charset=utf-8\r\n") || !strings.HasSuffix(got, "\r\n\r\n"+unavailableText) ||
		strings.Contains(got, "Retry-After") || strings.Count(got, "HTTP/1.1 ") != 1 {
		c.kernel.t.Fatalf("answer %q, want a 503 with Connection: close", got)
	}
	if c.state().shutAt.IsZero() {
		c.kernel.t.Fatal("our side is not shut down")
	}
}

func TestHandlerTimeout(t *testing.T) {
	inLateBubble(t, nil, hangs, func(t *testing.T, k *fakeKernel, h *lateTest) {
		c := k.connect()
		start := time.Now()
		c.send("GET /hang HTTP/1.1\r\nHost: h\r\n\r\n")
		k.pass(10*time.Second - time.Nanosecond)
		c.wantNothing()
		k.pass(time.Nanosecond)
		c.wantLate503()
		if state := c.state(); state.answeredAt.Sub(start) != 10*time.Second || !state.shutAt.Equal(state.answeredAt) {
			t.Errorf("answered after %v, end %v later", state.answeredAt.Sub(start), state.shutAt.Sub(state.answeredAt))
		}
		k.pass(time.Hour) // the handler hangs on, but the connection ends
		if closed := c.state().closedAt; closed.IsZero() || closed.Sub(start) > 13*time.Second {
			t.Errorf("closed %v after the start", closed.Sub(start))
		}
		stats := k.Stats()
		if stats.HandlerTimeouts != 1 || stats.Statuses["5xx"] != 1 || stats.BusyThreads != 1 || len(stats.Connections) != 0 {
			t.Errorf("HandlerTimeouts %d, Statuses %v, BusyThreads %d, Connections %v", stats.HandlerTimeouts, stats.Statuses, stats.BusyThreads, stats.Connections)
		}
		next := k.connect()
		next.send(getPath("/next"))
		next.wantNothing() // the place is still taken
		h.release()
		if err := <-h.results; err != http.ErrHandlerTimeout {
			t.Errorf("Write after the deadline: %v", err)
		}
		next.want200("/next")
		c.wantNothing()
		if stats := k.Stats(); stats.HandlerTimeouts != 1 || stats.Statuses["5xx"] != 1 || stats.Statuses["2xx"] != 1 || stats.BusyThreads != 0 {
			t.Errorf("in the end HandlerTimeouts %d, Statuses %v, BusyThreads %d", stats.HandlerTimeouts, stats.Statuses, stats.BusyThreads)
		}
		line := k.logs.next(t, "handler timed out (503)")
		if line.level != slog.LevelError || line.attrs["method"] != "GET" || line.attrs["path"] != "/hang" || line.attrs["elapsed"] != 10*time.Second {
			t.Errorf("logged %v %v", line.level, line.attrs)
		}
		stack := fmt.Sprint(line.attrs["stack"])
		if !strings.HasPrefix(stack, "goroutine ") || !strings.Contains(stack, "worker.hangThere(") || strings.Count(stack, "\ngoroutine ") > 0 {
			t.Errorf("stack %q", stack)
		}
	})
}

// Whatever the handler tries after its deadline is refused, reaches nobody, and
// does not touch the connection.
func TestHandlerTimeoutRefusesWrites(t *testing.T) {
	handler := func(h *lateTest, w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		deadline, ok := r.Context().Deadline()
		if left := time.Until(deadline); !ok || left != 10*time.Second {
			h.results <- fmt.Errorf("Deadline: %v from now, %v", left, ok)
		}
		w.Header().Set("X-Own", "x")
		w.WriteHeader(201)
		_, _ = io.WriteString(w, "held back") // and so not sent
		<-r.Context().Done()
		h.results <- r.Context().Err()
		_, err := w.Write([]byte("late"))
		h.results <- err
		_, err = io.WriteString(w, strings.Repeat("late", 10_000))
		h.results <- err
		_, err = w.(io.ReaderFrom).ReadFrom(strings.NewReader("late"))
		h.results <- err
		h.results <- rc.Flush()
		_, _, err = rc.Hijack()
		h.results <- err
		w.WriteHeader(103)
		w.WriteHeader(500)
		w.Header().Set("X-Late", "x")
		_ = rc.SetWriteDeadline(time.Now())
		<-h.gate
	}
	inLateBubble(t, nil, handler, func(t *testing.T, k *fakeKernel, h *lateTest) {
		c := k.connect()
		c.send(get)
		k.pass(10 * time.Second)
		c.wantLate503()
		for i, want := range []error{context.DeadlineExceeded, http.ErrHandlerTimeout, http.ErrHandlerTimeout, http.ErrHandlerTimeout, http.ErrHandlerTimeout, http.ErrHandlerTimeout} {
			if err := <-h.results; err != want {
				t.Errorf("result %d: %v, want %v", i, err, want)
			}
		}
		h.release()
		k.pass(time.Hour)
		c.wantNothing()
		k.stop()
		if lines := k.logs.all(); len(lines) != 1 {
			t.Errorf("logged: %v", lines)
		}
	})
}

// An answer that has begun goes on: only the context ends.
func TestHandlerTimeoutOfABegunAnswer(t *testing.T) {
	handler := func(h *lateTest, w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/begun" {
			_, _ = io.WriteString(w, "part ")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			h.results <- r.Context().Err()
			<-h.gate
		}
		_, err := io.WriteString(w, "whole")
		h.results <- err
	}
	inLateBubble(t, nil, handler, func(t *testing.T, k *fakeKernel, h *lateTest) {
		c := k.connect()
		c.send(getPath("/begun"))
		k.pass(10 * time.Second)
		if err := <-h.results; err != context.DeadlineExceeded {
			t.Errorf("the context ends with %v", err)
		}
		k.pass(time.Hour)
		h.release()
		if body, rest := cutAnswer(t, c.received()); body != "part whole" || rest != "" {
			t.Errorf("body %q, and %q", body, rest)
		}
		c.send(getPath("/next"))
		if body, _ := cutAnswer(t, c.received()); body != "whole" {
			t.Errorf("the next body %q", body)
		}
		if stats := k.Stats(); stats.HandlerTimeouts != 1 || stats.Statuses["2xx"] != 2 || stats.Statuses["5xx"] != 0 {
			t.Errorf("HandlerTimeouts %d, Statuses %v", stats.HandlerTimeouts, stats.Statuses)
		}
		line := k.logs.next(t, "handler timed out; its answer has begun and goes on")
		if line.level != slog.LevelWarn || !strings.Contains(fmt.Sprint(line.attrs["stack"]), "TestHandlerTimeoutOfABegunAnswer") {
			t.Errorf("logged %v %v", line.level, line.attrs)
		}
	})
}

// A handler that waits in Write for a slow client holds the response: its
// context ends all the same, and its answer goes on.
func TestHandlerTimeoutWhileWriting(t *testing.T) {
	const size = 1 << 20
	handler := func(h *lateTest, w http.ResponseWriter, r *http.Request) {
		stop := context.AfterFunc(r.Context(), func() { h.results <- r.Context().Err() })
		defer stop()
		_, err := w.Write(make([]byte, size))
		h.results <- err
	}
	inLateBubble(t, nil, handler, func(t *testing.T, k *fakeKernel, h *lateTest) {
		c := k.connect()
		c.setRoom(100)
		c.send(get)
		k.pass(10 * time.Second)
		select {
		case err := <-h.results:
			if err != context.DeadlineExceeded {
				t.Errorf("the context ends with %v", err)
			}
		default:
			t.Error("the context goes on")
		}
		k.pass(time.Second)
		c.take(-1)
		if err := <-h.results; err != nil {
			t.Errorf("Write: %v", err)
		}
		if body, rest := cutAnswer(t, c.received()); len(body) != size || rest != "" {
			t.Errorf("body of %d bytes, and %q", len(body), rest)
		}
		if n := k.Stats().HandlerTimeouts; n != 1 {
			t.Errorf("HandlerTimeouts %d", n)
		}
		line := k.logs.next(t, "handler timed out; its answer has begun and goes on")
		if line.attrs["elapsed"] != 11*time.Second {
			t.Errorf("logged %v", line.attrs)
		}
	})
}

// The answer fits the request.
func TestHandlerTimeoutAnswers(t *testing.T) {
	for request, want := range map[string]string{
		"HEAD /hang HTTP/1.1\r\nHost: h\r\n\r\n":              "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 24\r\nConnection: close\r\n\r\n",
		"GET /hang HTTP/1.0\r\n\r\n":                          "HTTP/1.0 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 24\r\n\r\n" + unavailableText,
		"POST /hang HTTP/1.1\r\nHost: h\r\nContent-Length: 3": "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 24\r\nConnection: close\r\n\r\n" + unavailableText,
	} {
		inLateBubble(t, nil, hangs, func(t *testing.T, k *fakeKernel, h *lateTest) {
			c := k.connect()
			if c.send(request); strings.HasPrefix(request, "POST") {
				c.send("\r\n\r\nabc")
			}
			k.pass(11 * time.Second)
			const date = "Date: Sat, 01 Jan 2000 00:00:10 GMT\r\n"
			if got := c.received(); strings.Replace(got, date, "", 1) != want {
				t.Errorf("to %q: %q, want %q", request, got, want)
			}
		})
	}
}

// Each handler has its own time, also those that one place serves in a row: a
// quick one's timer hits nobody.
func TestHandlerTimeoutIsEachHandlersOwn(t *testing.T) {
	handler := func(h *lateTest, w http.ResponseWriter, r *http.Request) {
		d, _ := time.ParseDuration(r.URL.Path[1:])
		<-time.After(d)
		if r.Context().Err() != nil {
			h.results <- fmt.Errorf("%s: %w", r.URL.Path, r.Context().Err())
		}
		_, _ = io.WriteString(w, r.URL.Path)
	}
	inLateBubble(t, nil, handler, func(t *testing.T, k *fakeKernel, h *lateTest) {
		c := k.connect()
		c.send(getPath("/9s") + getPath("/0s") + getPath("/9.999999999s") + getPath("/7s"))
		k.pass(time.Minute)
		for _, want := range []string{"/9s", "/0s", "/9.999999999s", "/7s"} {
			if !strings.Contains(c.state().answers(), "\r\n\r\n"+want) {
				t.Errorf("no answer to %s", want)
			}
		}
		c.received()
		for range 3 {
			c.send(getPath("/9s"))
			k.pass(9 * time.Second)
			c.want200("/9s")
		}
		c.send(getPath("/11s"))
		k.pass(10 * time.Second)
		c.wantLate503()
		k.pass(time.Second)
		if err := <-h.results; !errors.Is(err, context.DeadlineExceeded) || len(h.results) > 0 {
			t.Errorf("%v, and %d more", err, len(h.results))
		}
		if n := k.Stats().HandlerTimeouts; n != 1 {
			t.Errorf("HandlerTimeouts %d", n)
		}
	})
}

func (c fakeSocket) answers() string { return string(c.out) }

// A timer that was set for an earlier request fires too early, and is set
// right. When no handler runs it rests.
func TestHandlerTimeoutByAStaleTimer(t *testing.T) {
	var watch *handlerWatch
	handler := func(h *lateTest, w http.ResponseWriter, r *http.Request) {
		watch = w.(*response).scratch.watch
		watch.timer.Reset(time.Second)
		hangs(h, w, r)
	}
	inLateBubble(t, nil, handler, func(t *testing.T, k *fakeKernel, h *lateTest) {
		c := k.connect()
		c.send(getPath("/quick"))
		c.want200("/quick")
		if watch.timer.Stop() || watch.watched.Load() != nil {
			t.Error("a handler that has returned is watched")
		}
		start := time.Now()
		c.send(getPath("/hang"))
		k.pass(time.Minute)
		if took := c.state().shutAt.Sub(start); took != 10*time.Second {
			t.Errorf("answered after %v", took)
		}
		c.wantLate503()
	})
}

// A handler that is in the middle of writing at its deadline, but not its
// answer, loses the client right afterwards.
func TestHandlerTimeoutDuringAnInformationalAnswer(t *testing.T) {
	handler := func(h *lateTest, w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		hangs(h, w, r)
	}
	inLateBubble(t, nil, handler, func(t *testing.T, k *fakeKernel, h *lateTest) {
		c := k.connect()
		c.setRoom(5)
		c.send(getPath("/hang"))
		k.pass(11 * time.Second)
		c.take(-1)
		k.pass(lateRetry)
		const hint = "HTTP/1.1 103 Early Hints\r\n\r\n"
		if got := c.received(); !strings.HasPrefix(got, hint+"HTTP/1.1 503 ") || c.state().shutAt.IsZero() {
			t.Errorf("answers %q, shut down at %v", got, c.state().shutAt)
		}
		h.release()
		if err := <-h.results; err != http.ErrHandlerTimeout {
			t.Errorf("Write: %v", err)
		}
	})
}

// The goroutine that is looked for is the one that holds the place now.
func TestWatchKnowsItsGoroutine(t *testing.T) {
	ts := newTestServer(t, hello, func(o *Options) { o.HandlerTimeout = time.Hour })
	sc := newScratch(0, nil)
	for range 3 {
		prepared := make(chan string)
		go func() {
			ts.prepareWatch(sc, false)
			own := make([]byte, 1<<10)
			own = own[:runtime.Stack(own, false)]
			ts.prepareWatch(sc, true)
			prepared <- cutStack(own, sc.watch.goroutine)
		}()
		if stack := waitFor(t, prepared); stack == "" {
			t.Error("a goroutine is taken for another")
		}
	}
}

// The answers before it come first, and nothing behind it is served.
func TestHandlerTimeoutInAPipeline(t *testing.T) {
	inLateBubble(t, nil, hangs, func(t *testing.T, k *fakeKernel, h *lateTest) {
		c := k.connect()
		c.send(getPath("/1") + getPath("/2") + getPath("/hang") + getPath("/4"))
		k.pass(time.Minute)
		got := c.received()
		first, got := cutAnswer(t, got)
		second, got := cutAnswer(t, got)
		third, got := cutAnswer(t, got)
		if first != "/1" || second != "/2" || third != unavailableText || got != "" {
			t.Errorf("answers %q, %q, %q, and %q", first, second, third, got)
		}
		h.release()
		c.wantNothing()
	})
}

// A client that has not read the answers before it gets the 503 behind them,
// from the reactor, at its own pace.
func TestHandlerTimeoutBehindAFullSocket(t *testing.T) {
	change := func(o *Options) { o.Timeouts.WriteMinRate, o.Timeouts.WriteGrace = 1, time.Minute }
	inLateBubble(t, change, hangs, func(t *testing.T, k *fakeKernel, h *lateTest) {
		slow := k.connect()
		slow.setRoom(20)
		slow.send(getPath("/1") + getPath("/hang"))
		k.pass(30 * time.Second)
		if state := slow.state(); !state.shutAt.IsZero() || len(state.out) != 20 {
			t.Errorf("%d bytes, shut down at %v", len(state.out), state.shutAt)
		}
		slow.take(200)
		slow.take(-1)
		first, rest := cutAnswer(t, slow.received())
		second, rest := cutAnswer(t, rest)
		if first != "/1" || second != unavailableText || rest != "" || slow.state().shutAt.IsZero() {
			t.Errorf("answers %q, %q, and %q; shut down at %v", first, second, rest, slow.state().shutAt)
		}
	})
	inLateBubble(t, change, hangs, func(t *testing.T, k *fakeKernel, h *lateTest) {
		never := k.connect()
		never.setRoom(20)
		never.send(getPath("/1") + getPath("/hang"))
		k.pass(2 * time.Minute)
		if state := never.state(); state.closedAt.IsZero() || k.Stats().WriteErrors["too_slow"] != 1 {
			t.Errorf("closed at %v, WriteErrors %v", state.closedAt, k.Stats().WriteErrors)
		}
	})
}

// What becomes of the handler in the end, and what the client did before, makes
// no difference to anybody else.
func TestHandlerTimeoutThenTheHandlerFails(t *testing.T) {
	for name, fail := range map[string]func(){
		"returns":         func() {},
		"panics":          func() { panic("late") },
		"ErrAbortHandler": func() { panic(http.ErrAbortHandler) },
		"Goexit":          runtime.Goexit,
	} {
		for _, client := range []string{"waits", "resets before", "resets after", "finishes", "sends on"} {
			t.Run(name+", client "+client, func(t *testing.T) {
				handler := func(h *lateTest, w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/hang" {
						<-h.gate
						fail()
					}
					_, _ = io.WriteString(w, r.URL.Path)
				}
				inLateBubble(t, nil, handler, func(t *testing.T, k *fakeKernel, h *lateTest) {
					c := k.connect()
					if client == "finishes" {
						c.sendAndFinish(getPath("/hang"))
					} else {
						c.send(getPath("/hang"))
					}
					if client == "resets before" {
						c.fail(unix.ECONNRESET)
					}
					k.pass(10 * time.Second)
					if client == "resets before" {
						c.wantNothing()
					} else {
						c.wantLate503()
					}
					switch client {
					case "resets after":
						c.fail(unix.ECONNRESET)
					case "sends on":
						c.send(getPath("/more"))
					}
					k.pass(time.Minute)
					if c.state().closedAt.IsZero() {
						t.Error("not closed")
					}
					h.release()
					next := k.connect()
					next.send(getPath("/next"))
					next.want200("/next")
					stats := k.Stats()
					if stats.HandlerTimeouts != 1 || stats.Statuses["2xx"] != 1 || stats.Statuses["5xx"] != 1 || stats.Statuses["cut"] != 0 || len(stats.Connections) != 1 {
						t.Errorf("HandlerTimeouts %d, Statuses %v, Connections %v", stats.HandlerTimeouts, stats.Statuses, stats.Connections)
					}
				})
			})
		}
	}
}

// A client that leaves ends the context first: it says so.
func TestHandlerTimeoutAfterTheClientLeft(t *testing.T) {
	handler := func(h *lateTest, w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		<-h.gate
		h.results <- r.Context().Err()
	}
	inLateBubble(t, nil, handler, func(t *testing.T, k *fakeKernel, h *lateTest) {
		c := k.connect()
		c.send(get)
		c.fail(unix.ECONNRESET)
		k.pass(time.Minute)
		h.release()
		if err := <-h.results; err != context.Canceled {
			t.Errorf("the context ends with %v", err)
		}
	})
}

// Without the option there is no deadline, and with a nearer one of the base
// context that is what counts.
func TestHandlerDeadline(t *testing.T) {
	type seen struct {
		deadline time.Time
		ok       bool
	}
	for _, test := range []struct {
		name            string
		option, base    time.Duration
		want            time.Duration
		wantOK, want503 bool
	}{
		{"off", 0, 0, 0, false, false},
		{"option", time.Second, 0, time.Second, true, true},
		{"base", 0, time.Second, time.Second, true, false},
		{"base is nearer", time.Minute, time.Second, time.Second, true, true},
		{"option is nearer", time.Second, time.Minute, time.Second, true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var seens chan seen
			handler := func(h *lateTest, w http.ResponseWriter, r *http.Request) {
				deadline, ok := r.Context().Deadline()
				seens <- seen{deadline, ok}
				<-h.gate
			}
			change := func(o *Options) { o.HandlerTimeout = test.option }
			inLateBubble(t, change, handler, func(t *testing.T, k *fakeKernel, h *lateTest) {
				seens = make(chan seen, 1)
				if test.base > 0 {
					base, cancel := context.WithTimeout(context.Background(), test.base)
					defer cancel()
					k.listener.base = base
				}
				start := time.Now()
				c := k.connect()
				c.send(get)
				if got := <-seens; got.ok != test.wantOK || got.ok && got.deadline.Sub(start) != test.want {
					t.Errorf("Deadline: after %v, %v", got.deadline.Sub(start), got.ok)
				}
				k.pass(time.Hour)
				if got := c.received(); (got != "") != test.want503 {
					t.Errorf("answer %q", got)
				}
			})
		})
	}
}

// In blocking mode it works the same.
func TestHandlerTimeoutInBlockingMode(t *testing.T) {
	inLateBubble(t, func(o *Options) { o.QueueRequests = false }, hangs, func(t *testing.T, k *fakeKernel, h *lateTest) {
		c := k.connect()
		c.send(getPath("/1"))
		c.want200("/1")
		c.send(getPath("/hang"))
		k.pass(10 * time.Second)
		c.wantLate503()
		k.pass(time.Minute)
		if c.state().closedAt.IsZero() {
			t.Error("not closed")
		}
		h.release()
		next := k.connect()
		next.send(getPath("/next"))
		next.want200("/next")
	})
}

// One dump of all stacks a second, and who does not get one says so.
func TestHandlerTimeoutStacksAreRare(t *testing.T) {
	inLateBubble(t, func(o *Options) { o.MaxThreads = 3 }, hangs, func(t *testing.T, k *fakeKernel, h *lateTest) {
		for _, pause := range []time.Duration{0, 999 * time.Millisecond, time.Millisecond} {
			k.pass(pause)
			k.connect().send(getPath("/hang" + pause.String()))
		}
		k.pass(time.Minute)
		k.stop()
		if n := k.Stats().HandlerTimeouts; n != 3 {
			t.Errorf("HandlerTimeouts %d", n)
		}
		for _, want := range []string{"worker.hangThere(", "not taken: another was", "worker.hangThere("} {
			line := k.logs.next(t, "handler timed out (503)")
			if stack := fmt.Sprint(line.attrs["stack"]); !strings.Contains(stack, want) {
				t.Errorf("stack %q, want %q", stack, want)
			}
		}
		if text := k.stackOf(1); text == "" {
			t.Error("no stack, and no reason")
		}
		if text := k.stackOf(1); !strings.HasPrefix(text, "not taken") {
			t.Errorf("a second dump at once: %q", text)
		}
		k.pass(time.Second)
		if text := k.stackOf(1 << 40); !strings.HasPrefix(text, "not found: goroutine 1099511627776 ") {
			t.Errorf("stack of a goroutine that is not there: %q", text)
		}
	})
}

func TestCutStack(t *testing.T) {
	dump := []byte("goroutine 12 [running]:\nmain.a()\n\ngoroutine 1 [select, 3 minutes]:\nmain.b()\n\ngoroutine 2 [chan receive]:\nmain.c(")
	for id, want := range map[int]string{
		12: "goroutine 12 [running]:\nmain.a()", 1: "goroutine 1 [select, 3 minutes]:\nmain.b()", 2: "goroutine 2 [chan receive]:\nmain.c(", 3: "",
	} {
		if got := cutStack(dump, id); got != want {
			t.Errorf("cutStack(%d) = %q, want %q", id, got, want)
		}
	}
	own := make([]byte, 1<<20)
	own = own[:runtime.Stack(own, true)]
	if stack := cutStack(own, goroutineID()); !strings.Contains(stack, "TestCutStack") {
		t.Errorf("own stack %q", stack)
	}
}

// After Hijack the deadline ends the context, and nothing else.
func TestHandlerTimeoutAndHijack(t *testing.T) {
	ended := make(chan error, 1)
	ts, taken := hijacking(t, nil, func(o *Options) { o.HandlerTimeout = 300 * time.Millisecond })
	ts.options.Handler = http.HandlerFunc(func(next http.Handler) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r)
			<-r.Context().Done()
			ended <- r.Context().Err()
		}
	}(ts.options.Handler))
	c := ts.dial()
	c.send(getPath("/hijack"))
	h := waitFor(t, taken)
	if err := waitFor(t, ended); err != context.DeadlineExceeded {
		t.Errorf("the context ends with %v", err)
	}
	_, _ = h.rw.WriteString("alive\n")
	_ = h.rw.Flush()
	if line, err := c.reader.ReadString('\n'); line != "alive\n" || err != nil {
		t.Errorf("read %q, %v", line, err)
	}
	if _, err := h.w.Write([]byte("x")); !errors.Is(err, http.ErrHijacked) && !errors.Is(err, errFinished) {
		t.Errorf("Write = %v", err)
	}
	h.conn.Close()
	c.wantEnd()
	ts.stop()
	if stats := ts.Stats(); stats.HandlerTimeouts != 0 {
		t.Errorf("HandlerTimeouts %d", stats.HandlerTimeouts)
	}
}

// Shutdown does not wait for a handler whose client has been answered.
func TestShutdownWithAHungHandler(t *testing.T) {
	gate := make(chan struct{})
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		waitFor(t, gate)
		if addr := r.Context().Value(http.LocalAddrContextKey); addr.(net.Addr).String() == "" {
			t.Error("no local address")
		}
	}, func(o *Options) { o.HandlerTimeout = 20 * time.Millisecond })
	defer close(gate)
	c := ts.dial()
	c.send(get)
	if a := c.want(503, unavailableText); !a.Close {
		t.Errorf("header %v", a.Header)
	}
	c.wantEnd()
	c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := ts.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

// Handlers that end, write, flush, fail or hang just when their time is over:
// each client gets one answer, whole and its own, or the 503. (The race
// detector looks on.)
func TestHandlerTimeoutRaces(t *testing.T) {
	const clients, rounds = 8, 60
	const timeout = 2 * time.Millisecond
	var helpers sync.WaitGroup
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		mark := r.URL.Path[1:]
		wait := func() {
			select {
			case <-time.After(timeout - 100*time.Microsecond):
			case <-r.Context().Done():
			}
		}
		switch mark[0] {
		case 'a': // all at once
			wait()
			_, _ = io.WriteString(w, strings.Repeat(mark, 100))
		case 'b': // flushed
			wait()
			for range 100 {
				_, _ = io.WriteString(w, mark)
				_ = http.NewResponseController(w).Flush()
			}
		case 'c': // large
			wait()
			_, _ = io.WriteString(w, strings.Repeat(mark, 10_000))
		case 'd': // somebody else writes, and goes on after the handler
			helpers.Go(func() {
				for range 100 {
					if _, err := io.WriteString(w, mark); err != nil {
						return
					}
					w.Header().Get("X")
					runtime.Gosched()
				}
			})
			wait()
		case 'e': // fails
			wait()
			panic(http.ErrAbortHandler)
		case 'f': // heeds the context
			<-r.Context().Done()
			if deadline, ok := r.Context().Deadline(); !ok || time.Now().Before(deadline) {
				t.Error("the context has ended before its deadline")
			}
			_, err := io.WriteString(w, mark)
			if err != http.ErrHandlerTimeout && err != nil {
				t.Errorf("Write: %v", err)
			}
		case 'g': // quick
			_, _ = io.WriteString(w, mark)
		}
	}, func(o *Options) { o.HandlerTimeout, o.MaxThreads = timeout, 6 })
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
				c := &client{TCPConn: conn.(*net.TCPConn), t: t}
				mark := fmt.Sprintf("%c%d-%d.", 'a'+(n+i)%7, n, i)
				if _, err := io.WriteString(c, getPath("/g")+getPath("/"+mark, "Connection: close")); err != nil {
					t.Error(err)
				}
				checkRaced(t, c, mark)
				conn.Close()
			}
		})
	}
	done.Wait()
	helpers.Wait()
	ts.until("all places are free", func() bool { return ts.Stats().BusyThreads == 0 })
	t.Logf("%d handlers too late of %d", ts.Stats().HandlerTimeouts, clients*rounds)
}

func checkRaced(t *testing.T, c *client, mark string) {
	raw, err := io.ReadAll(c)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && mark[0] == 'e' {
		return // a cut answer may end in any way
	}
	if err != nil {
		t.Errorf("%s: %v after %q", mark, err, clip(string(raw)))
		return
	}
	text := string(raw)
	first, rest, _ := strings.Cut(text, "\r\n\r\ng")
	if strings.HasPrefix(first, "HTTP/1.1 503 ") {
		return // a very busy machine
	}
	if mark[0] == 'e' && rest == "" {
		return
	}
	switch count := strings.Count(rest, "HTTP/1.1 "); {
	case count != 1:
		t.Errorf("%s: %d answers in %q", mark, count, clip(text))
	case strings.HasPrefix(rest, "HTTP/1.1 503 "):
		if !strings.HasSuffix(rest, "\r\n\r\n"+unavailableText) {
			t.Errorf("%s: %q", mark, clip(rest))
		}
	case strings.HasPrefix(rest, "HTTP/1.1 200 ") && mark[0] != 'e':
		body, behind := cutAnswer(t, rest)
		if strings.ReplaceAll(body, mark, "") != "" || behind != "" || mark[0] < 'd' && len(body) == 0 {
			t.Errorf("%s: body %q, and %q", mark, clip(body), clip(behind))
		}
	default:
		t.Errorf("%s: %q", mark, clip(rest))
	}
}
