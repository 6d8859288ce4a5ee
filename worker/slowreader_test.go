package worker

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bigAnswer is more than any socket and OutputMemory take.
const bigAnswer = 1 << 20

func writeBig(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", fmt.Sprint(bigAnswer))
	_, _ = io.WriteString(w, strings.Repeat("x", bigAnswer))
}

func TestWriteDeadlines(t *testing.T) {
	all := func(o *Options) { o.OutputMemory = 2 * bigAnswer } // the reactor writes
	some := func(o *Options) { o.OutputMemory = 1000 }         // the handler waits
	rate := func(t *Timeouts) { t.WriteMinRate, t.WriteGrace = 500, 20*time.Second }
	total := func(t *Timeouts) { t.Write = 90 * time.Second }
	for _, test := range []struct {
		name   string
		set    func(*Timeouts)
		memory func(*Options)
		take   int // bytes that the client takes each second
		due    time.Duration
		exact  bool
		cause  string
	}{
		{"rate, nothing taken, reactor", rate, all, 0, 20 * time.Second, true, "too_slow"},
		{"rate, nothing taken, handler", rate, some, 0, 20 * time.Second, true, "too_slow"},
		{"rate, trickle, reactor", rate, all, 100, 24800 * time.Millisecond, false, "too_slow"},
		{"rate, trickle, handler", rate, some, 100, 24800 * time.Millisecond, false, "too_slow"},
		{"total, reactor", total, all, 3000, 90 * time.Second, true, "deadline"},
		{"total, handler", total, some, 3000, 90 * time.Second, true, "deadline"},
	} {
		t.Run(test.name, func(t *testing.T) {
			change := func(o *Options) { only(test.set)(o); test.memory(o) }
			inBubble(t, writeBig, change, func(t *testing.T, k *fakeKernel) {
				c := k.connect()
				c.setRoom(10_000)
				start := time.Now()
				c.send(getPath("/big"))
				for c.state().closedAt.IsZero() && time.Since(start) < 10*time.Minute {
					k.pass(time.Second)
					c.take(test.take)
				}
				slack := 2 * time.Second
				if test.exact {
					slack = time.Second // the next look of this loop
				}
				if closed := c.state().closedAt; closed.Sub(start) < test.due || closed.Sub(start) > test.due+slack {
					t.Errorf("closed after %v, want %v", closed.Sub(start), test.due)
				}
				k.wantUndelivered(test.cause, "/big")
			})
		})
	}
}

// What remains in memory when a handler's Write has failed is not a second
// failure.
func TestWriteFailureCountsOnce(t *testing.T) {
	small := func(w http.ResponseWriter, _ *http.Request) {
		for range 2000 {
			if _, err := io.WriteString(w, strings.Repeat("x", 1000)); err != nil {
				return
			}
		}
	}
	for name, happens := range map[string]func(k *fakeKernel, c *fakeSocket){
		"too_slow": func(k *fakeKernel, _ *fakeSocket) { k.pass(time.Minute) },
		"reset":    func(_ *fakeKernel, c *fakeSocket) { c.fail(unix.ECONNRESET) },
	} {
		t.Run(name, func(t *testing.T) {
			change := func(o *Options) { o.OutputMemory = 100_000 }
			inBubble(t, small, change, func(t *testing.T, k *fakeKernel) {
				c := k.connect()
				c.setRoom(10_000)
				c.send(getPath("/small"))
				happens(k, c)
				if c.state().closedAt.IsZero() {
					t.Error("the connection is still open")
				}
				k.wantUndelivered(name, "/small")
			})
		})
	}
}

// A client at the minimum rate gets everything, however long it takes.
func TestWriteAtTheMinimumRate(t *testing.T) {
	const size = 100_000
	handler := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", size)) }
	for name, memory := range map[string]int{"reactor": 2 * size, "handler": 1000} {
		t.Run(name, func(t *testing.T) {
			change := func(o *Options) {
				only(func(t *Timeouts) { t.WriteMinRate, t.WriteGrace = 500, 20*time.Second })(o)
				o.OutputMemory = memory
			}
			inBubble(t, handler, change, func(t *testing.T, k *fakeKernel) {
				c := k.connect()
				c.setRoom(0)
				c.send(get)
				bytes := 0
				for range size/510 + 10 {
					k.pass(time.Second)
					c.take(510)
					bytes += len(c.received())
				}
				if bytes < size {
					t.Errorf("%d bytes arrived of more than %d", bytes, size)
				}
				if failures := k.Stats().WriteErrors; len(failures) > 0 {
					t.Errorf("failures %v", failures)
				}
			})
		})
	}
}

// A handler's own deadline for writing.
func TestSetWriteDeadline(t *testing.T) {
	var failed error
	var took time.Duration
	handler := func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		if err := control.SetWriteDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Errorf("SetWriteDeadline = %v", err)
		}
		start := time.Now()
		for failed == nil {
			_, failed = io.WriteString(w, strings.Repeat("x", 10_000))
		}
		took = time.Since(start)
	}
	inBubble(t, handler, func(o *Options) { o.OutputMemory = 50_000 }, func(t *testing.T, k *fakeKernel) {
		c := k.connect()
		c.setRoom(20_000)
		c.send(getPath("/x"))
		k.pass(4 * time.Second)
		c.take(10_000) // does not stretch it
		k.pass(time.Minute)
		if !errors.Is(failed, os.ErrDeadlineExceeded) || took != 5*time.Second {
			t.Errorf("Write = %v after %v", failed, took)
		}
		if c.state().closedAt.IsZero() {
			t.Error("the connection is still open")
		}
		k.wantUndelivered("deadline", "/x")
	})
}

// Once the handler has returned a slow client holds no place, and it gets
// every byte.
func TestSlowReaderHoldsNoPlace(t *testing.T) {
	for _, request := range []string{getPath("/big"), getPath("/big", "Connection: close"), "GET /big HTTP/1.0\r\n\r\n"} {
		t.Run(request, func(t *testing.T) {
			change := func(o *Options) { o.OutputMemory, o.MaxThreads = 2*bigAnswer, 1 }
			inBubble(t, writeBig, change, func(t *testing.T, k *fakeKernel) {
				c := k.connect()
				c.setRoom(1000)
				c.send(request)
				if stats := k.Stats(); stats.BusyThreads != 0 || stats.Connections["writing"] != 1 {
					t.Fatalf("%d places busy, connections %v", stats.BusyThreads, stats.Connections)
				}
				other := k.connect() // the only place is free for it
				other.send(get)
				if got := other.received(); !strings.HasPrefix(got, "HTTP/1.1 200") {
					t.Errorf("the other client got %q", clip(got))
				}
				var got strings.Builder
				for c.state().closedAt.IsZero() && got.Len() < bigAnswer+10_000 && k.Stats().Connections["writing"] > 0 {
					c.take(16 << 10)
					got.WriteString(c.received())
				}
				head, body, _ := strings.Cut(got.String(), "\r\n\r\n")
				if len(body) != bigAnswer || strings.Trim(body, "x") != "" {
					t.Errorf("%d bytes of body after %q, want %d", len(body), head, bigAnswer)
				}
			})
		})
	}
}

// Every answer that does not arrive is logged, also the last one of a
// connection.
func TestUndeliveredAnswerIsLogged(t *testing.T) {
	resetLater := func(k *fakeKernel, c *fakeSocket) { c.fail(unix.ECONNRESET) }
	for _, test := range []struct {
		name, request string
		handler       http.HandlerFunc
		room          int
		happens       func(k *fakeKernel, c *fakeSocket)
		cause         string
	}{
		{"reset, keep-alive", getPath("/x"), writeBig, 1000, resetLater, "reset"},
		{"reset, close", getPath("/x", "Connection: close"), writeBig, 1000, resetLater, "reset"},
		{"reset, 1.0", "GET /x HTTP/1.0\r\n\r\n", writeBig, 1000, resetLater, "reset"},
		{"broken pipe", getPath("/x"), writeBig, 1000, func(_ *fakeKernel, c *fakeSocket) { c.fail(unix.EPIPE) }, "broken_pipe"},
		{"timed out", getPath("/x"), writeBig, 1000, func(_ *fakeKernel, c *fakeSocket) { c.fail(unix.ETIMEDOUT) }, "timed_out"},
		{"unreachable", getPath("/x"), writeBig, 1000, func(_ *fakeKernel, c *fakeSocket) { c.fail(unix.EHOSTUNREACH) }, "unreachable"},
		{"too slow, keep-alive", getPath("/x"), writeBig, 1000, func(k *fakeKernel, _ *fakeSocket) { k.pass(time.Minute) }, "too_slow"},
		{"too slow, close", getPath("/x", "Connection: close"), writeBig, 1000, func(k *fakeKernel, _ *fakeSocket) { k.pass(time.Minute) }, "too_slow"},
		{"handler gone before", getPath("/x"), func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done() // the reset
			hello(w, r)
		}, 1000, resetLater, "reset"},
		{"handler gone before, close", getPath("/x", "Connection: close"), func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			hello(w, r)
		}, 1000, resetLater, "reset"},
	} {
		t.Run(test.name, func(t *testing.T) {
			change := func(o *Options) { o.OutputMemory = 2 * bigAnswer }
			inBubble(t, test.handler, change, func(t *testing.T, k *fakeKernel) {
				c := k.connect()
				c.setRoom(test.room)
				c.send(test.request)
				test.happens(k, c)
				k.wantUndelivered(test.cause, "/x")
			})
		})
	}
}

// The line names the request whose answer was lost, not the one behind it.
func TestUndeliveredAnswerIsTheRightOne(t *testing.T) {
	change := func(o *Options) { o.OutputMemory, o.MaxFastInline = 2*bigAnswer, 1 }
	inBubble(t, writeBig, change, func(t *testing.T, k *fakeKernel) {
		c := k.connect()
		c.setRoom(1000)
		c.send(getPath("/first") + getPath("/second"))
		c.fail(unix.ECONNRESET)
		k.wantUndelivered("reset", "/first")
	})
}

// wantUndelivered checks that a failed answer was counted once and logged once.
func (k *fakeKernel) wantUndelivered(cause, path string) logRecord {
	k.t.Helper()
	if failures := k.Stats().WriteErrors; failures[cause] != 1 || len(failures) != 1 {
		k.t.Errorf("write failures %v, want one of %s", failures, cause)
	}
	k.stop()
	lines := k.logs.all()
	if len(lines) != 1 {
		k.t.Fatalf("log %v, want one line", lines)
	}
	a := lines[0].attrs
	if a["cause"] != cause || a["path"] != path || a["method"] != "GET" || fmt.Sprint(a["status"]) != "200" || a["written"] == nil || a["peer"] == nil {
		k.t.Errorf("line %v, want cause %s, method, path %s, status, bytes and peer", a, cause, path)
	}
	return lines[0]
}

// A large file flows: the kernel may take more of it ahead, until all of it has
// been sent or its client has left. Only so many at a time.
func TestLargeFilesFlow(t *testing.T) {
	name := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(name, make([]byte, 16<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	fds := make(chan int, 1)
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		fds <- exchangeOf(r).slot.FD()
		http.ServeFile(w, r, name)
	})
	ahead := func(fd int) int {
		n, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT)
		if err != nil {
			t.Error(err)
		}
		return n
	}
	c := ts.dial()
	c.send(get)
	fd := waitFor(t, fds)
	ts.until("the file flows", func() bool { return ahead(fd) == flowNotSent && ts.flows.Load() == 1 })
	if got := c.answerTo("GET"); got.err != nil || len(got.body) != 16<<20 {
		t.Fatalf("%d bytes, %v", len(got.body), got.err)
	}
	ts.until("the file has been sent", func() bool { return ahead(fd) == notSent && ts.flows.Load() == 0 })

	c.send(get)
	waitFor(t, fds)
	ts.until("the next one flows", func() bool { return ts.flows.Load() == 1 })
	c.Close()
	ts.until("its client has left", func() bool { return ts.flows.Load() == 0 })

	ts.flows.Store(maxFlows)
	c = ts.dial()
	c.send(get)
	fd = waitFor(t, fds)
	if got := c.answerTo("GET"); got.err != nil || len(got.body) != 16<<20 {
		t.Fatalf("%d bytes, %v", len(got.body), got.err)
	}
	if n := ahead(fd); n != notSent {
		t.Errorf("one too many has %d", n)
	}
	ts.until("it was not counted", func() bool { return ts.flows.Load() == maxFlows })
}
