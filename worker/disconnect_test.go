package worker

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A client that leaves in the middle of a request is noticed at once, in
// whichever pieces the kernel tells of it.
func TestClientLeavesDuringRequest(t *testing.T) {
	parts := map[string]string{
		"head": "GET / HTTP/1.1\r\nHos",
		"body": "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc",
	}
	ways := map[string]func(c *fakeSocket, bytes string){
		"end of file afterwards":       func(c *fakeSocket, bytes string) { c.send(bytes); c.sendAndFinish("") },
		"end of file with the bytes":   func(c *fakeSocket, bytes string) { c.sendAndFinish(bytes) },
		"reset afterwards":             func(c *fakeSocket, bytes string) { c.send(bytes); c.fail(unix.ECONNRESET) },
		"reset with the bytes":         func(c *fakeSocket, bytes string) { c.put(bytes, false); c.fail(unix.ECONNRESET) },
		"end of file behind a request": func(c *fakeSocket, bytes string) { c.sendAndFinish(get + bytes) },
	}
	for phase, bytes := range parts {
		for way, leave := range ways {
			t.Run(phase+", "+way, func(t *testing.T) {
				inBubble(t, hello, nil, func(t *testing.T, k *fakeKernel) {
					c := k.connect()
					leave(c, bytes)
					if state := c.state(); state.closedAt.IsZero() {
						t.Errorf("the connection is still open")
					}
					if stats := k.Stats(); stats.Vanished != 1 {
						t.Errorf("Vanished = %d, want 1", stats.Vanished)
					}
					k.stop()
					lines := k.logs.all()
					if len(lines) != 1 || fmt.Sprint(lines[0].attrs["phase"]) != phase || lines[0].attrs["peer"] == nil {
						t.Errorf("log %v, want one line with peer and phase %s", lines, phase)
					}
				})
			})
		}
	}
}

// Between two requests a client may leave without a word.
func TestClientLeavesBetweenRequests(t *testing.T) {
	for _, served := range []int{0, 1} {
		for way, leave := range map[string]func(c *fakeSocket){
			"end of file": func(c *fakeSocket) { c.sendAndFinish("") },
			"reset":       func(c *fakeSocket) { c.fail(unix.ECONNRESET) },
			"empty lines": func(c *fakeSocket) { c.send("\r\n"); c.sendAndFinish("") },
		} {
			t.Run(fmt.Sprintf("%s after %d requests", way, served), func(t *testing.T) {
				inBubble(t, hello, nil, func(t *testing.T, k *fakeKernel) {
					c := k.connect()
					c.send(strings.Repeat(get, served))
					leave(c)
					if state := c.state(); state.closedAt.IsZero() {
						t.Errorf("the connection is still open")
					}
					if stats := k.Stats(); stats.Vanished != 0 || stats.Gone != 0 {
						t.Errorf("Vanished = %d, Gone = %d, want 0", stats.Vanished, stats.Gone)
					}
					k.stop()
					if lines := k.logs.all(); len(lines) > 0 {
						t.Errorf("logged: %v", lines)
					}
				})
			})
		}
	}
}

// The end of file may come with the request: some clients shut down their side
// when they have said everything. The answer arrives all the same.
func TestHalfClosedClientGetsItsAnswers(t *testing.T) {
	for name, request := range map[string]string{
		"one": get, "close": getPath("/", "Connection: close"), "1.0": "GET / HTTP/1.0\r\n\r\n",
		"three": get + get + get, "body": post("hello"),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, hello, nil, func(t *testing.T, k *fakeKernel) {
				c := k.connect()
				c.sendAndFinish(request)
				if got := strings.Count(c.received(), "Hello, World!"); got != max(strings.Count(request, "GET"), 1) {
					t.Errorf("%d answers", got)
				}
				if state := c.state(); state.closedAt.IsZero() || state.reset {
					t.Errorf("closed %v, with a reset: %t", state.closedAt, state.reset)
				}
			})
		})
	}
}

// The context of a request ends when its client goes, while the handler runs.
func TestContextEndsWithTheClient(t *testing.T) {
	for name, leave := range map[string]func(*client){
		"reset":      (*client).reset,
		"half-close": func(c *client) { _ = c.CloseWrite() },
	} {
		t.Run(name, func(t *testing.T) {
			entered := make(chan struct{})
			ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
				close(entered)
				<-r.Context().Done()
				if err := r.Context().Err(); err != context.Canceled {
					t.Errorf("Err() = %v", err)
				}
				hello(w, r)
			})
			c := ts.dial()
			c.send(get)
			waitFor(t, entered)
			leave(c)
			if name == "half-close" {
				c.want(200, "Hello, World!")
				c.wantEnd()
			}
			ts.until("the client is counted as gone", func() bool { return ts.Stats().Gone == 1 })
		})
	}
}

// A client that went together with its request has gone when the handler starts.
func TestContextOfClientThatLeftBefore(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"reactor":                  nil,
		"blocking":                 func(o *Options) { o.QueueRequests = false },
		"blocking, not the first":  func(o *Options) { o.QueueRequests = false },
		"reactor, not the first":   nil,
		"blocking, streamed":       func(o *Options) { o.QueueRequests = false; streaming(o) },
		"reactor, with its body":   nil,
		"blocking, with its body":  func(o *Options) { o.QueueRequests = false },
		"reactor, streamed":        streaming,
		"reactor, 1.0, as a whole": nil,
	} {
		t.Run(name, func(t *testing.T) {
			var errs []error
			handler := func(w http.ResponseWriter, r *http.Request) { errs = append(errs, r.Context().Err()) }
			inBubble(t, handler, change, func(t *testing.T, k *fakeKernel) {
				c := k.connect()
				request, want := get, []error{context.Canceled}
				switch {
				case strings.HasSuffix(name, "not the first"):
					c.send(get)
					want = []error{nil, context.Canceled}
				case strings.HasSuffix(name, "body"):
					request = post("hello")
				case strings.Contains(name, "1.0"):
					request = "GET / HTTP/1.0\r\n\r\n"
				}
				c.sendAndFinish(request)
				if !slices.Equal(errs, want) {
					t.Errorf("errors of the contexts when the handlers start: %v, want %v", errs, want)
				}
			})
		})
	}
}

// A handler that writes to a client who has reset the connection hears of it,
// and so does the log, once.
func TestResetWhileTheHandlerWrites(t *testing.T) {
	entered, reset := make(chan struct{}), make(chan struct{})
	failed := make(chan error, 1)
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		waitFor(t, reset)
		for {
			if _, err := io.WriteString(w, strings.Repeat("x", 10_000)); err != nil {
				if _, again := io.WriteString(w, "x"); again == nil {
					t.Error("a Write after a failed one succeeds")
				}
				if r.Context().Err() == nil {
					t.Error("the context has not ended with the failed write")
				}
				failed <- err
				return
			}
		}
	})
	c := ts.dial()
	c.send(getPath("/written"))
	waitFor(t, entered)
	c.reset()
	close(reset)
	waitFor(t, failed)
	ts.until("the connection is gone", func() bool { return ts.reactor.Size() == 0 })
	var failures uint64
	for _, n := range ts.Stats().WriteErrors {
		failures += n
	}
	if failures != 1 {
		t.Errorf("write failures %v, want one", ts.Stats().WriteErrors)
	}
	n, lines := ts.countLogged("response not delivered")
	if n != 1 || len(lines) != 1 {
		t.Fatalf("log %v, want one line", lines)
	}
	if cause := lines[0].attrs["cause"]; cause != "reset" && cause != "broken_pipe" {
		t.Errorf("cause %v", cause)
	}
}

// A request whose client has left while it waited for a place is served with
// an ended context: the handler can save itself the work.
func TestClientLeavesWhileQueued(t *testing.T) {
	entered, gate := make(chan struct{}), make(chan struct{})
	states := make(chan error, 1)
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			close(entered)
			waitFor(t, gate)
			return
		}
		states <- r.Context().Err()
	}, func(o *Options) { o.MaxThreads = 1 })
	first, queued := ts.dial(), ts.dial()
	first.send(getPath("/wait"))
	waitFor(t, entered)
	queued.send(get)
	ts.until("the request is queued", func() bool { return ts.Stats().Backlog == 1 })
	queued.reset()
	ts.until("the client is gone", func() bool { return ts.Stats().Gone == 1 })
	close(gate)
	if err := waitFor(t, states); err != context.Canceled {
		t.Errorf("Err() = %v", err)
	}
}
