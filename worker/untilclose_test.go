package worker

import (
	"errors"
	"io"
	"net/http"
	"syscall"
	"testing"
	"time"
)

// An answer that only the end of its connection ends must not look whole when it
// is not: its end is a reset then, and an orderly one only when it is whole.
func TestAnswersUntilClose(t *testing.T) {
	begin := func(w http.ResponseWriter) {
		_, _ = io.WriteString(w, "part")
		_ = http.NewResponseController(w).Flush()
	}
	identity := getPath("/", "Connection: close")
	for name, test := range map[string]struct {
		request string
		handler http.HandlerFunc
		reset   bool
	}{
		"whole":             {"GET / HTTP/1.0\r\n\r\n", func(w http.ResponseWriter, _ *http.Request) { begin(w) }, false},
		"panic":             {"GET / HTTP/1.0\r\n\r\n", func(w http.ResponseWriter, _ *http.Request) { begin(w); panic(http.ErrAbortHandler) }, true},
		"panic, kept alive": {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", func(w http.ResponseWriter, _ *http.Request) { begin(w); panic(http.ErrAbortHandler) }, true},
		"panic, identity": {identity, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Transfer-Encoding", "identity")
			begin(w)
			panic(http.ErrAbortHandler)
		}, true},
		"panic, chunked": {identity, func(w http.ResponseWriter, _ *http.Request) { begin(w); panic(http.ErrAbortHandler) }, false},
		"panic, a length": {"GET / HTTP/1.0\r\n\r\n", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9")
			begin(w)
			panic(http.ErrAbortHandler)
		}, false},
		"panic before it is sent": {"GET / HTTP/1.0\r\n\r\n", func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			modes(t, func(t *testing.T, mode func(*Options)) {
				ts := startServer(t, test.handler, mode)
				c := ts.dial()
				c.send(test.request)
				if _, err := io.ReadAll(c.reader); errors.Is(err, syscall.ECONNRESET) != test.reset || err != nil && !test.reset {
					t.Errorf("the connection ended with %v; with a reset: want %t", err, test.reset)
				}
			})
		})
	}
}

// The same when the client does not take the answer, and when the server is
// closed while the reactor sends it.
func TestAnswersUntilCloseThatAreNotTaken(t *testing.T) {
	slow := func(k *fakeKernel, _ *fakeSocket) { k.pass(time.Minute) }
	for name, test := range map[string]struct {
		request string
		memory  int
		happens func(k *fakeKernel, c *fakeSocket)
		reset   bool
	}{
		"the handler's":       {"GET / HTTP/1.0\r\n\r\n", 100_000, slow, true},
		"the reactor's":       {"GET / HTTP/1.0\r\n\r\n", 2 * bigAnswer, slow, true},
		"closed":              {"GET / HTTP/1.0\r\n\r\n", 2 * bigAnswer, func(k *fakeKernel, _ *fakeSocket) { k.Close() }, true},
		"taken":               {"GET / HTTP/1.0\r\n\r\n", 2 * bigAnswer, func(k *fakeKernel, c *fakeSocket) { c.take(-1) }, false},
		"the reactor's, HEAD": {"HEAD / HTTP/1.0\r\n\r\n", 2 * bigAnswer, slow, false},
		"chunked":             {get, 2 * bigAnswer, slow, false},
	} {
		t.Run(name, func(t *testing.T) {
			change := func(o *Options) { o.OutputMemory = test.memory }
			handler := func(w http.ResponseWriter, r *http.Request) {
				_ = http.NewResponseController(w).Flush() // no length can be worked out
				writeBig(w, r)
			}
			inBubble(t, handler, change, func(t *testing.T, k *fakeKernel) {
				c := k.connect()
				c.setRoom(1000)
				c.send(test.request)
				test.happens(k, c)
				k.pass(time.Minute)
				if state := c.state(); state.closedAt.IsZero() || state.reset != test.reset {
					t.Errorf("closed %v, with a reset %t, want %t", state.closedAt, state.reset, test.reset)
				}
			})
		})
	}
}
