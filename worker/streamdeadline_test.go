package worker

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// read is how a handler's body ended.
type read struct {
	bytes int
	err   error
	at    time.Time
}

// TestStreamDeadlines: a stream's reader is told when the client is too slow.
// The client sends a piece each second.
func TestStreamDeadlines(t *testing.T) {
	const head = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n"
	for name, test := range map[string]struct {
		set     func(*Timeouts)
		handler func(control *http.ResponseController)
		piece   int
		stops   int // after so many pieces; 0: never
		due     time.Duration
		counted bool
	}{
		"idle":  {func(t *Timeouts) { t.BodyIdle = 30 * time.Second }, nil, 10, 5, 35 * time.Second, true},
		"rate":  {func(t *Timeouts) { t.BodyMinRate, t.BodyGrace = 500, 20*time.Second }, nil, 100, 0, 24800 * time.Millisecond, true},
		"total": {func(t *Timeouts) { t.Request = 40 * time.Second }, nil, 100, 0, 40 * time.Second, true},
		"the handler's own": {func(t *Timeouts) { t.BodyIdle, t.Request = 2*time.Second, 10*time.Second }, func(control *http.ResponseController) {
			_ = control.SetReadDeadline(time.Now().Add(50 * time.Second))
		}, 100, 0, 50 * time.Second, false},
		"the handler's own, past": {func(t *Timeouts) { t.BodyIdle = 2 * time.Second }, func(control *http.ResponseController) {
			_ = control.SetReadDeadline(time.Unix(1, 0))
		}, 100, 0, 0, false},
		"the handler's own, moved while it reads": {func(t *Timeouts) { t.BodyIdle = 2 * time.Second }, func(control *http.ResponseController) {
			_ = control.SetReadDeadline(time.Time{})
			time.AfterFunc(10500*time.Millisecond, func() { _ = control.SetReadDeadline(time.Now().Add(3 * time.Second)) })
		}, 100, 3, 13500 * time.Millisecond, false},
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan read, 1)
			handler := func(w http.ResponseWriter, r *http.Request) {
				if test.handler != nil {
					test.handler(http.NewResponseController(w))
				}
				n, err := io.Copy(io.Discard, r.Body)
				ended <- read{int(n), err, time.Now()}
				_, again := r.Body.Read(make([]byte, 1))
				fmt.Fprint(w, errors.Is(again, os.ErrDeadlineExceeded))
			}
			inBubble(t, handler, func(o *Options) { only(test.set)(o); streaming(o) }, func(t *testing.T, k *fakeKernel) {
				c := k.connect()
				start := time.Now()
				c.send(head)
				for i := 0; len(ended) == 0 && i < 1000; i++ {
					k.pass(time.Second)
					if len(ended) == 0 && (test.stops == 0 || i < test.stops) {
						c.send(strings.Repeat("x", test.piece))
					}
				}
				end := waitFor(t, ended)
				if !errors.Is(end.err, os.ErrDeadlineExceeded) {
					t.Errorf("Read = %v", end.err)
				}
				if took := end.at.Sub(start); took < test.due || took > test.due+time.Second {
					t.Errorf("after %v, want %v", took, test.due)
				}
				if got := c.received(); !strings.HasSuffix(got, "true") || !strings.Contains(got, "\r\nConnection: close\r\n") {
					t.Errorf("the handler's answer is %q", got)
				}
				if n := k.Stats().Timeouts["body"]; (n == 1) != test.counted {
					t.Errorf("%d timeouts counted", n)
				}
			})
		})
	}
}

// The client's rate is not measured while the handler does something else.
func TestStreamHandlerTakesItsTime(t *testing.T) {
	ended := make(chan read, 1)
	handler := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadFull(r.Body, make([]byte, 4))
		<-time.After(time.Hour)
		n, err := io.Copy(io.Discard, r.Body)
		ended <- read{int(n), err, time.Now()}
	}
	change := func(o *Options) {
		only(func(t *Timeouts) { t.BodyMinRate, t.BodyGrace, t.BodyIdle = 500, 20*time.Second, 30*time.Second })(o)
		streaming(o)
	}
	inBubble(t, handler, change, func(t *testing.T, k *fakeKernel) {
		c := k.connect()
		c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\nslow")
		k.pass(time.Hour + time.Second)
		c.send("body")
		if end := waitFor(t, ended); end.bytes != 4 || end.err != nil {
			t.Errorf("%d, %v", end.bytes, end.err)
		}
	})
}

// A body of which the handler left a little unread must come, too, or the
// connection ends as an idle one.
func TestUnreadBodyThatNeverComes(t *testing.T) {
	change := func(o *Options) { only(func(t *Timeouts) { t.Idle = 75 * time.Second })(o); streaming(o) }
	inBubble(t, hello, change, func(t *testing.T, k *fakeKernel) {
		c := k.connect()
		start := time.Now()
		c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\nslow")
		k.pass(2 * time.Minute)
		if got := c.received(); !strings.HasSuffix(got, "Hello, World!") {
			t.Errorf("answer %q", got)
		}
		k.onTime("end", c.state().shutAt, start, 75*time.Second)
	})
}

// A buffered body heeds the deadline too: it was here in time, but the handler
// was late.
func TestReadDeadlineOfBufferedBody(t *testing.T) {
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(time.Now().Add(time.Hour))
		_, first := io.ReadFull(r.Body, make([]byte, 2))
		_ = control.SetReadDeadline(time.Unix(1, 0))
		_, second := r.Body.Read(make([]byte, 1))
		_ = control.SetReadDeadline(time.Time{})
		_, third := r.Body.Read(make([]byte, 1))
		fmt.Fprint(w, first, errors.Is(second, os.ErrDeadlineExceeded), errors.Is(third, os.ErrDeadlineExceeded))
	})
	c := ts.dial()
	c.send(post("body"))
	c.want(200, "<nil> true true")
}

// A handler that has let its read deadline pass wants no more of the body, and
// nobody knows how slowly the rest comes: a client that is told that the
// connection goes on would have its next request wait behind its own upload.
func TestUnreadBodyBeyondReadDeadline(t *testing.T) {
	const head = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n"
	past := time.Unix(1, 0)
	for name, test := range map[string]struct {
		send      string
		deadlines []time.Time
		goesOn    bool
	}{
		"passed":                     {head + "some", []time.Time{past}, false},
		"passed, and nothing here":   {head, []time.Time{past}, false},
		"passed, and all of it here": {head + "some more", []time.Time{past}, true},
		"passed, then removed":       {head + "some", []time.Time{past, {}}, true},
		"to come":                    {head + "some", []time.Time{time.Now().Add(time.Hour)}, true},
	} {
		t.Run(name, func(t *testing.T) {
			ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
				for _, deadline := range test.deadlines {
					_ = http.NewResponseController(w).SetReadDeadline(deadline)
				}
				hello(w, r)
			}, streaming)
			c := ts.dial()
			c.send(test.send)
			if a := c.want(200, "Hello, World!"); a.Close == test.goesOn {
				t.Errorf("the answer says close: %v", a.Close)
			}
			if !test.goesOn {
				c.wantEnd()
				return
			}
			if rest := len(head) + 9 - len(test.send); rest > 0 {
				c.send(strings.Repeat("x", rest))
			}
			c.send(get)
			c.want(200, "Hello, World!")
		})
	}
}

// Who ends a Read under way with a deadline in the past, and then closes the
// body, ends it by the deadline, as with net/http: a library that takes every
// other error of a Read for a sign of life sets a new deadline then.
func TestReadDeadlineBeforeClose(t *testing.T) {
	var got []error
	handler := func(w http.ResponseWriter, r *http.Request) {
		ended := make(chan error)
		go func() {
			_, err := r.Body.Read(make([]byte, 10))
			ended <- err
		}()
		time.Sleep(time.Second) // in the bubble: until it waits
		_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
		_ = r.Body.Close()
		got = append(got, <-ended)
		hello(w, r)
	}
	inBubble(t, handler, streaming, func(t *testing.T, k *fakeKernel) {
		const rounds = 20 // the reader may be quicker than the Close
		for range rounds {
			c := k.connect()
			c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\n")
			k.pass(2 * time.Second)
			if got := c.received(); !strings.Contains(got, "Connection: close\r\n") {
				t.Errorf("answer %q", got)
			}
		}
		if len(got) != rounds {
			t.Errorf("%d of %d", len(got), rounds)
		}
		for _, err := range got {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Read: %v", err)
			}
		}
	})
}
