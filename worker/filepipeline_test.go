package worker

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// A request that is refused while a file of the answer before it is still being
// sent: its answer comes behind the file, and nothing of it is left with the pool
// place, from where it would go to the place's next client.
func TestRefusedBehindFile(t *testing.T) {
	content := noise(300_000)
	for name, test := range map[string]struct {
		handler    func(w http.ResponseWriter, f *os.File) (int64, error)
		outputFile int64
	}{
		"the handler's": {func(w http.ResponseWriter, f *os.File) (int64, error) {
			return io.Copy(w, f)
		}, 0},
		"of the server's, full": {func(w http.ResponseWriter, f *os.File) (int64, error) {
			return io.Copy(struct{ io.Writer }{w}, struct{ io.Reader }{f})
		}, int64(len(content))},
		"of the server's, nearly full": {func(w http.ResponseWriter, f *os.File) (int64, error) {
			return io.Copy(struct{ io.Writer }{w}, struct{ io.Reader }{f})
		}, int64(len(content)) + 100},
	} {
		t.Run(name, func(t *testing.T) {
			f := tempFile(t, content)
			handler := filesAndHello(t, len(content), func(w http.ResponseWriter) (int64, error) { return test.handler(w, f) })
			change := func(o *Options) {
				o.MaxThreads, o.OutputMemory = 1, 1000
				o.OutputFile, o.OutputFileTotal, o.BodyDirectory = test.outputFile, 1<<30, t.TempDir()
			}
			inBubble(t, handler, change, func(t *testing.T, k *fakeKernel) {
				c, other := k.connect(), k.connect()
				c.setRoom(1000)
				c.send(getPath("/file") + "no request\r\n\r\n")
				other.send(getPath("/"))
				if got := other.received(); !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.HasSuffix(got, "\r\n\r\nHello, World!") {
					t.Errorf("another client got %q", clip(got))
				}
				c.take(-1)
				k.pass(time.Second)
				body, rest := cutAnswer(t, c.received())
				if body != string(content) {
					t.Errorf("%d bytes of the file that differ from it, want %d", len(body), len(content))
				}
				if !strings.HasPrefix(rest, "HTTP/1.1 400 Bad Request\r\n") {
					t.Errorf("behind the file came %q, want a 400", clip(rest))
				}
			})
		})
	}
}

// filesAndHello is a handler that answers /file with so many bytes, which copy
// writes, and everything else with hello.
func filesAndHello(t *testing.T, size int, copy func(w http.ResponseWriter) (int64, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/file" {
			hello(w, r)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(size))
		if n, err := copy(w); n != int64(size) || err != nil {
			t.Errorf("copied %d of %d bytes: %v", n, size, err)
		}
	}
}
