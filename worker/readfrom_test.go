package worker

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
)

// scarceFile is a file when there is no descriptor left for a duplicate.
type scarceFile struct{ *os.File }

func (scarceFile) SyscallConn() (syscall.RawConn, error) { return nil, errors.New("no descriptor") }

// Without a descriptor for sendfile a file is copied. A handler that does not
// look at the error, as http.ServeContent, would else have promised a body that
// never comes, and the client would take the next answer for it.
func TestSendFileWithoutDescriptor(t *testing.T) {
	content := noise(200_000)
	f := tempFile(t, content)
	handler := filesAndHello(t, len(content), func(w http.ResponseWriter) (int64, error) {
		return w.(io.ReaderFrom).ReadFrom(scarceFile{f})
	})
	inBubble(t, handler, nil, func(t *testing.T, k *fakeKernel) {
		c := k.connect()
		c.send(getPath("/file") + get)
		body, rest := cutAnswer(t, c.received())
		if body != string(content) {
			t.Fatalf("%d bytes that are not the file's, want %d", len(body), len(content))
		}
		if body, rest = cutAnswer(t, rest); body != "Hello, World!" || rest != "" {
			t.Errorf("the next answer %q, and then %q", clip(body), clip(rest))
		}
	})
}

// No more of a file is sent than the handler has declared: what follows would be
// read as the next answer. As with Write, the handler is told.
func TestSendFileBeyondItsLength(t *testing.T) {
	content := noise(200_000)
	ts := startServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100000")
		if _, err := io.Copy(w, tempFile(t, content)); !errors.Is(err, http.ErrContentLength) {
			t.Errorf("io.Copy: %v", err)
		}
	})
	c := ts.dial()
	c.send(get, get)
	a := c.answer()
	if a.err != io.ErrUnexpectedEOF || !strings.HasPrefix(string(content), a.body) {
		t.Errorf("%d bytes, %v", len(a.body), a.err)
	}
	c.wantEnd()
}

// A status without a body has none of a file either.
func TestSendFileNotAllowed(t *testing.T) {
	for _, status := range []int{204, 304} {
		ts := startServer(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			if n, err := io.Copy(w, tempFile(t, noise(200_000))); n != 0 || !errors.Is(err, http.ErrBodyNotAllowed) {
				t.Errorf("io.Copy = %d, %v", n, err)
			}
		})
		c := ts.dial()
		c.send(get, get)
		c.want(status, "")
		c.want(status, "")
	}
}
