package worker

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// hijacking serves one handler that takes its connection, and delivers it.
func hijacking(t *testing.T, before func(w http.ResponseWriter, r *http.Request), changes ...func(*Options)) (*testServer, chan hijacked) {
	taken := make(chan hijacked, 1)
	return startServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/hijack" {
			hello(w, r)
			return
		}
		if before != nil {
			before(w, r)
		}
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(patience))
		taken <- hijacked{conn, rw, w, r}
	}, changes...), taken
}

type hijacked struct {
	conn net.Conn
	rw   *bufio.ReadWriter
	w    http.ResponseWriter
	r    *http.Request
}

func TestHijack(t *testing.T) {
	ts, taken := hijacking(t, nil)
	c := ts.dial()
	c.send(get, getPath("/hijack"), "buffered ")
	c.want(200, "Hello, World!") // what was answered before comes first
	h := waitFor(t, taken)
	c.send("and later\n")
	if line, err := h.rw.ReadString('\n'); line != "buffered and later\n" || err != nil {
		t.Errorf("read %q, %v", line, err)
	}
	if h.conn.RemoteAddr().String() != c.LocalAddr().String() || h.conn.LocalAddr().String() != ts.addr {
		t.Errorf("addresses %v and %v", h.conn.RemoteAddr(), h.conn.LocalAddr())
	}
	if n, err := h.w.Write([]byte("x")); n != 0 || !errors.Is(err, http.ErrHijacked) {
		t.Errorf("Write = %d, %v", n, err)
	}
	if err := http.NewResponseController(h.w).Flush(); !errors.Is(err, http.ErrHijacked) {
		t.Errorf("Flush = %v", err)
	}
	if _, _, err := http.NewResponseController(h.w).Hijack(); !errors.Is(err, http.ErrHijacked) {
		t.Errorf("a second Hijack: %v", err)
	}
	h.w.WriteHeader(500)
	// The server knows nothing of it any more.
	ts.until("the server forgets the connection", func() bool { return ts.reactor.Size() == 0 })
	if stats := ts.Stats(); stats.Hijacked != 1 || stats.BusyThreads != 0 {
		t.Errorf("Hijacked %d, BusyThreads %d", stats.Hijacked, stats.BusyThreads)
	}
	ts.stop()
	_, _ = h.rw.WriteString("after the server\n")
	_ = h.rw.Flush()
	if line, err := c.reader.ReadString('\n'); line != "after the server\n" || err != nil {
		t.Errorf("read %q, %v", line, err)
	}
	h.conn.Close()
	c.wantEnd()
}

// All bytes that the server has already read are in the buffer: handlers take
// what is Buffered and then read from the connection itself.
func TestHijackedBufferIsWhole(t *testing.T) {
	for _, size := range []int{1, 4095, 4096, 4097, 20_000, 60_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			ts, taken := hijacking(t, nil)
			release := ts.holdReactor() // so that all of it comes in one read
			early := pattern(size)
			c := ts.dial()
			c.send(getPath("/hijack"), early)
			release()
			h := waitFor(t, taken)
			buffered := h.rw.Reader.Buffered()
			got := make([]byte, buffered)
			if _, err := io.ReadFull(h.rw, got); err != nil {
				t.Fatal(err)
			}
			_ = c.CloseWrite()
			rest, err := io.ReadAll(h.conn) // around the buffer
			if string(got)+string(rest) != early || err != nil {
				t.Errorf("%d bytes buffered and %d from the connection, of %d (%v)", buffered, len(rest), size, err)
			}
		})
	}
}

// 101, then the connection.
func TestHijackAfterSwitchingProtocols(t *testing.T) {
	for name, flush := range map[string]bool{"flushed": true, "not flushed": false} {
		t.Run(name, func(t *testing.T) {
			ts, taken := hijacking(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Connection", "Upgrade")
				w.Header().Set("Upgrade", "echo")
				w.WriteHeader(http.StatusSwitchingProtocols)
				if flush {
					w.(http.Flusher).Flush()
				}
			})
			c := ts.dial()
			c.send(getPath("/hijack", "Connection: Upgrade", "Upgrade: echo"))
			h := waitFor(t, taken)
			a, err := http.ReadResponse(c.reader, nil)
			if err != nil || a.StatusCode != 101 || a.Header.Get("Connection") != "Upgrade" || a.Header.Get("Upgrade") != "echo" {
				t.Fatalf("answer %v, %v", a, err)
			}
			if a.Header.Get("Content-Length") != "" || len(a.TransferEncoding) > 0 || a.Header.Get("Keep-Alive") != "" {
				t.Errorf("framing of a 101: %v", a.Header)
			}
			_, _ = io.WriteString(h.conn, "free\n")
			if line, _ := c.reader.ReadString('\n'); line != "free\n" {
				t.Errorf("read %q", line)
			}
		})
	}
}

// What the handler has written before it takes the connection comes before what
// it writes then, whether it was sent or held back.
func TestHijackAfterWriting(t *testing.T) {
	for name, test := range map[string]struct {
		before func(w http.ResponseWriter)
		want   string // after the head
	}{
		"WriteHeader":     {func(w http.ResponseWriter) { w.WriteHeader(200) }, "raw"},
		"Write":           {func(w http.ResponseWriter) { _, _ = io.WriteString(w, "part") }, "4\r\npart\r\nraw"},
		"Flush":           {func(w http.ResponseWriter) { flush4("pa", "rt")(w, nil) }, "2\r\npa\r\n2\r\nrt\r\nraw"},
		"declared length": {func(w http.ResponseWriter) { w.Header().Set("Content-Length", "7"); flush4("pa", "rt")(w, nil) }, "partraw"},
	} {
		t.Run(name, func(t *testing.T) {
			withModes(t, func(t *testing.T, mode func(*Options)) {
				ts := startServer(t, func(w http.ResponseWriter, _ *http.Request) {
					test.before(w)
					conn := hijack(t, w)
					if conn == nil {
						return
					}
					_, _ = io.WriteString(conn, "raw")
					conn.Close()
				}, mode)
				c := ts.dial()
				c.send(post("body"))
				if head, rest, _ := strings.Cut(c.rest(), "\r\n\r\n"); !strings.HasPrefix(head, "HTTP/1.1 200 OK\r\n") || rest != test.want {
					t.Errorf("head %q, then %q", head, rest)
				}
			})
		})
	}
}

// A place is not held by whoever has hijacked.
func TestHijackGivesItsPlace(t *testing.T) {
	gate := make(chan struct{})
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/hijack" {
			hello(w, r)
			return
		}
		conn := hijack(t, w)
		if conn == nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "mine\n")
		waitFor(t, gate)
	}, func(o *Options) { o.MaxThreads = 1 })
	defer close(gate)
	for range 3 {
		c := ts.dial()
		c.send(getPath("/hijack"))
		if line, _ := c.reader.ReadString('\n'); line != "mine\n" {
			t.Errorf("read %q", line)
		}
	}
	c := ts.dial()
	c.send(get)
	c.want(200, "Hello, World!")
}

// Deadlines are the new owner's affair: none of the server's is left.
func TestHijackedDeadlines(t *testing.T) {
	ts, taken := hijacking(t, nil)
	c := ts.dial()
	c.send(getPath("/hijack"))
	h := waitFor(t, taken)
	_ = h.conn.SetReadDeadline(time.Unix(1, 0))
	if _, err := h.conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read = %v", err)
	}
	_ = h.conn.SetReadDeadline(time.Time{})
	c.send("x")
	if _, err := h.conn.Read(make([]byte, 1)); err != nil {
		t.Errorf("Read = %v", err)
	}
}

// A body that was sent is read before the connection is taken.
func TestHijackWithABody(t *testing.T) {
	ts, taken := hijacking(t, func(w http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); string(body) != "hello" || err != nil {
			t.Errorf("body %q, %v", body, err)
		}
	})
	c := ts.dial()
	c.send(strings.Replace(post("hello"), "POST /", "POST /hijack", 1), "behind")
	_ = c.CloseWrite()
	h := waitFor(t, taken)
	if rest, err := io.ReadAll(h.rw); string(rest) != "behind" || err != nil {
		t.Errorf("behind the body: %q, %v", rest, err)
	}
}

// A connection that could not be handed out for want of a descriptor is served
// as before.
func TestHijackWithoutDescriptor(t *testing.T) {
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/hijack" {
			hello(w, r)
			return
		}
		var limit syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
		none := limit
		none.Cur = 0
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
			t.Error(err)
		}
		_, _, err := w.(http.Hijacker).Hijack()
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
		if err == nil {
			t.Error("Hijack made a connection without a descriptor")
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	c := ts.dial()
	c.send(getPath("/hijack"))
	c.want(503, "")
	ts.waitState(StateIdle, 1) // from here on only an event brings the next request
	c.send(get)
	c.want(200, "Hello, World!")
}

// An answer before it, in the same pipeline, is over with it: what befalls the
// next client of the place is not reported as that answer's.
func TestHijackEndsTheAnswersBefore(t *testing.T) {
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done() // the client has closed its side
		if r.URL.Path != "/hijack" {
			hello(w, r)
			return
		}
		conn := hijack(t, w)
		if conn == nil {
			return
		}
		conn.Close()
	}, func(o *Options) { o.QueueRequests, o.MaxThreads = false, 1 })
	first := ts.dial()
	first.send(get, getPath("/hijack"))
	if err := first.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	first.want(200, "Hello, World!")
	first.wantEnd()
	ts.until("the place is back", func() bool { return ts.pool.Stats().Detached == 0 })
	second := ts.dial()
	second.send("NONSENSE\r\n\r\n")
	second.want(400, "400 Bad Request: bad_method\n")
	if _, lines := ts.countLogged("request refused"); len(lines) != 1 {
		t.Errorf("logged: %v", lines)
	}
}
