package worker

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

// A handler that fails harms nobody: its answer is cut so that the client
// notices, and the server goes on.
func TestHandlerFails(t *testing.T) {
	cause := errors.New("the cause")
	failures := map[string]struct {
		fail   func()
		logged string // what the line says; "": there is none
	}{
		"panic":           {func() { panic(cause) }, "the cause"},
		"nil dereference": {func() { var p *int; *p = 1 }, "nil pointer"},
		"ErrAbortHandler": {func() { panic(http.ErrAbortHandler) }, ""},
		"Goexit":          {runtime.Goexit, "Goexit"},
	}
	moments := map[string]struct {
		before func(w http.ResponseWriter)
		check  func(t *testing.T, raw string)
	}{
		"before anything": {func(http.ResponseWriter) {}, wantNothing},
		"after WriteHeader": {func(w http.ResponseWriter) {
			w.Header().Set("X-A", "b")
			w.WriteHeader(201)
		}, wantNothing},
		"after a small Write": {func(w http.ResponseWriter) { _, _ = io.WriteString(w, "part") }, wantNothing},
		"after Flush":         {func(w http.ResponseWriter) { flush4("par", "t")(w, nil); w.(http.Flusher).Flush() }, wantCutChunks},
		"after a large Write": {func(w http.ResponseWriter) { _, _ = w.Write(make([]byte, 100_000)) }, wantCutChunks},
		"within its length": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "1000")
			flush4("par", "t")(w, nil)
			w.(http.Flusher).Flush()
		}, func(t *testing.T, raw string) {
			if _, body, _ := strings.Cut(raw, "\r\n\r\n"); body != "part" {
				t.Errorf("answer %q", raw)
			}
		}},
	}
	for failure, f := range failures {
		for moment, m := range moments {
			t.Run(failure+" "+moment, func(t *testing.T) {
				ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/fail" {
						m.before(w)
						f.fail()
					}
					hello(w, r)
				}, func(o *Options) { o.MaxThreads = 1 })
				c := ts.dial()
				c.send(get, getPath("/fail"), get)
				c.want(200, "Hello, World!") // the answer before it is whole
				m.check(t, c.rest())
				other := ts.dial() // and the only place is free again
				other.send(get)
				other.want(200, "Hello, World!")
				stats := ts.Stats()
				if want := uint64(min(len(f.logged), 1)); stats.Panics != want {
					t.Errorf("Panics = %d, want %d", stats.Panics, want)
				}
				if stats.Statuses["cut"] != 1 {
					t.Errorf("statuses %v, want one cut", stats.Statuses)
				}
				n, lines := ts.countLogged("handler panicked")
				if n != min(len(f.logged), 1) || n != len(lines) {
					t.Fatalf("log %v", lines)
				}
				if n == 1 {
					a := lines[0].attrs
					if !strings.Contains(fmt.Sprint(a["panic"]), f.logged) || !strings.Contains(fmt.Sprint(a["stack"]), "panic_test.go") || a["path"] != "/fail" || a["peer"] == nil {
						t.Errorf("line %v", a)
					}
				}
			})
		}
	}
}

// A handler that fails does not take the answers before it along, whatever its
// client has sent meanwhile: closing with unread bytes would reset the connection.
func TestHandlerFailsAndResetsNobody(t *testing.T) {
	for name, fail := range map[string]func(){"panic": func() { panic(http.ErrAbortHandler) }, "Goexit": runtime.Goexit} {
		for mode, change := range map[string]func(*Options){"reactor": nil, "blocking": func(o *Options) { o.QueueRequests = false }} {
			t.Run(name+" "+mode, func(t *testing.T) {
				var gate chan struct{} // made in the bubble
				handler := func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/fail" {
						<-gate
						fail()
					}
					hello(w, r)
				}
				inBubble(t, handler, change, func(t *testing.T, k *fakeKernel) {
					gate = make(chan struct{})
					c := k.connect()
					c.send(get + getPath("/fail"))
					c.send(get)
					close(gate)
					k.pass(time.Second)
					c.send(get)
					if got := c.received(); strings.Count(got, "Hello, World!") != 1 {
						t.Errorf("received %q, want one answer", got)
					}
					k.pass(time.Minute)
					if state := c.state(); state.shutAt.IsZero() || state.closedAt.IsZero() || state.reset {
						t.Errorf("shut down %v, closed %v, reset %t", state.shutAt, state.closedAt, state.reset)
					}
				})
			})
		}
	}
}

func wantNothing(t *testing.T, raw string) {
	t.Helper()
	if raw != "" {
		t.Errorf("sent %q of an answer that nobody may take for one", raw)
	}
}

func wantCutChunks(t *testing.T, raw string) {
	t.Helper()
	if !strings.HasPrefix(raw, "HTTP/1.1 200") || strings.HasSuffix(raw, "0\r\n\r\n") {
		t.Errorf("answer %d bytes, %q", len(raw), clip(raw))
	}
}

// A panic after Hijack is the handler's own affair.
func TestPanicAfterHijack(t *testing.T) {
	ts := startServer(t, func(w http.ResponseWriter, _ *http.Request) {
		conn := hijack(t, w)
		if conn == nil {
			return
		}
		_, _ = io.WriteString(conn, "hijacked")
		conn.Close()
		panic("afterwards")
	})
	c := ts.dial()
	c.send(get)
	if got := c.rest(); got != "hijacked" {
		t.Errorf("got %q", got)
	}
	ts.logs.next(t, "handler panicked")
}

// Nor does an OnRequest that fails: neither this client nor the place's next one
// gets anything but the answers to what they have asked.
func TestOnRequestFails(t *testing.T) {
	path := func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.Path) }
	for name, test := range map[string]struct {
		fail func()
		want string // how the answer ends
	}{
		"panic":  {func() { panic("the cause") }, "/fail"},
		"Goexit": {runtime.Goexit, ""},
	} {
		t.Run(name, func(t *testing.T) {
			change := func(o *Options) {
				o.MaxThreads = 1
				o.OnRequest = func(r *AccessRecord) {
					if r.Path == "/fail" {
						test.fail()
					}
				}
			}
			inBubble(t, path, change, func(t *testing.T, k *fakeKernel) {
				c, other := k.connect(), k.connect()
				c.send(getPath("/fail"))
				other.send(getPath("/other"))
				if got := c.received(); !strings.HasSuffix(got, test.want) || (got == "") != (test.want == "") {
					t.Errorf("got %q, want %q at its end", got, test.want)
				}
				if body, rest := cutAnswer(t, other.received()); body != "/other" || rest != "" {
					t.Errorf("another client got %q, and then %q", body, rest)
				}
				if n := k.Stats().BusyThreads; n != 0 {
					t.Errorf("%d places are busy", n)
				}
			})
		})
	}
}
