package worker

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// exchangeOf is the server's side of a request that is being handled.
func exchangeOf(r *http.Request) *exchange { return r.Context().(*requestContext).exchange }

// pattern is n bytes that are not all the same, so that lost and swapped ones
// show.
func pattern(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%d,", i)
	}
	return b.String()[:n]
}

// chunks cuts a body into chunks of different sizes.
func chunks(body string) string {
	var b strings.Builder
	for size := 1; len(body) > 0; size = size*3 + 1 {
		n := min(size, len(body))
		fmt.Fprintf(&b, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	return b.String() + "0\r\n\r\n"
}

// Up to BodyMemory bytes are kept in memory, and one more goes to a file.
func TestBodyMemoryBoundary(t *testing.T) {
	const limit = 70_000
	directory := t.TempDir()
	type report struct {
		body   string
		inFile bool
		length int64
		err    error
	}
	reports := make(chan report, 1)
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		inFile := exchangeOf(r).body.file != nil
		body, err := io.ReadAll(r.Body)
		reports <- report{string(body), inFile, r.ContentLength, err}
	}, func(o *Options) { o.BodyMemory, o.BodyDirectory = limit, directory })
	c := ts.dial()
	for _, size := range []int{1, limit - 1, limit, limit + 1, 3 * limit, limit} {
		for _, framing := range []string{"length", "chunked"} {
			body, length := pattern(size), int64(size)
			if framing == "length" {
				c.send(post(body))
			} else {
				length = -1
				c.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", chunks(body))
			}
			got := waitFor(t, reports)
			if got.body != body || got.err != nil || got.length != length {
				t.Errorf("%d bytes, %s: got %d bytes (%v), ContentLength %d", size, framing, len(got.body), got.err, got.length)
			}
			if want := size > limit; got.inFile != want {
				t.Errorf("%d bytes, %s: in a file: %t, want %t", size, framing, got.inFile, want)
			}
			c.want(200, "")
		}
	}
	if left, _ := os.ReadDir(directory); len(left) > 0 {
		t.Errorf("files left in the directory: %v", left)
	}
}

// Uploads of any size arrive whole, and several at once apart.
func TestLargeUploads(t *testing.T) {
	for _, blocks := range []int64{0, 1 << 20, 64 << 20} {
		modes(t, func(t *testing.T, mode func(*Options)) { largeUploads(t, blocks, mode) })
	}
}

func largeUploads(t *testing.T, blocks int64, mode func(*Options)) {
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		fmt.Fprintf(w, "%d %x %v", n, sum.Sum(nil), err)
	}, mode, func(o *Options) { o.BodyMemoryTotal = blocks })
	done := make(chan struct{})
	for i := range 3 {
		c := ts.dial()
		go func() {
			defer func() { done <- struct{}{} }()
			body := strings.Repeat(string(rune('a'+i))+pattern(99_999), 30)
			for _, request := range []string{post(body), "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(body)} {
				if _, err := io.WriteString(c, request); err != nil {
					t.Error(err)
					return
				}
				if a, want := c.answer(), fmt.Sprintf("%d %x <nil>", len(body), sha256.Sum256([]byte(body))); a.body != want {
					t.Errorf("answer %q, want %q", a.body, want)
				}
			}
		}()
	}
	for range 3 {
		waitFor(t, done)
	}
}

func TestNoBody(t *testing.T) {
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Body != http.NoBody || r.ContentLength != 0 || r.TransferEncoding != nil {
			t.Errorf("Body %v, ContentLength %d, TransferEncoding %v", r.Body, r.ContentLength, r.TransferEncoding)
		}
	})
	c := ts.dial()
	c.send(get, post(""))
	c.want(200, "")
	c.want(200, "")
}

func TestTrailers(t *testing.T) {
	type report struct {
		declared     []string
		header, mute http.Header
	}
	reports := make(chan report, 1)
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		var declared []string
		for key := range r.Trailer {
			declared = append(declared, key)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		reports <- report{declared, r.Header, r.Trailer}
	})
	c := ts.dial()
	c.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum, X-Other\r\nTrailer: X-Missing\r\n\r\n",
		"5\r\nhello\r\n0\r\nx-Sum: 1\r\nX-Sum: 2\r\nX-Other:\r\nUndeclared: yes\r\nContent-Length: 7\r\nAuthorization: no\r\n\r\n", get)
	got := waitFor(t, reports)
	for _, key := range []string{"X-Sum", "X-Other", "X-Missing"} {
		if _, ok := got.mute[key]; !ok || !strings.Contains(strings.Join(got.declared, " "), key) {
			t.Errorf("declared before the body: %v, after it %v; want %s", got.declared, got.mute, key)
		}
	}
	if sums := got.mute["X-Sum"]; len(sums) != 2 || sums[0] != "1" || sums[1] != "2" {
		t.Errorf("X-Sum: %q", sums)
	}
	if got.mute["X-Missing"] != nil || got.mute.Get("Undeclared") != "yes" {
		t.Errorf("trailers %v", got.mute)
	}
	for _, forbidden := range []string{"Content-Length", "Authorization"} {
		if _, ok := got.mute[forbidden]; ok {
			t.Errorf("%s among the trailers: %v", forbidden, got.mute)
		}
	}
	for _, key := range []string{"X-Sum", "Trailer", "Transfer-Encoding"} {
		if _, ok := got.header[key]; ok {
			t.Errorf("%s in the header: %v", key, got.header)
		}
	}
	waitFor(t, reports)
	c.want(200, "")
	c.want(200, "")
}

// A body that cannot be stored is refused and logged; nobody else is harmed.
func TestBodyStorageFails(t *testing.T) {
	large := pattern(500_000)
	for name, directory := range map[string]func(t *testing.T) string{"no directory": goneDirectory, "full disk": tinyDisk, "full disk after a block": tinyDisk} {
		for framing, request := range map[string]string{
			"length":  post(large),
			"chunked": "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(large),
		} {
			blocks := int64(0)
			if name == "full disk after a block" {
				blocks = 1 << 20
			}
			t.Run(name+", "+framing, func(t *testing.T) {
				handled := 0
				path := directory(t)
				ts := startServer(t, func(w http.ResponseWriter, r *http.Request) { handled++; hello(w, r) },
					func(o *Options) { o.BodyMemory, o.BodyMemoryTotal, o.BodyDirectory = 1000, blocks, path })
				for range 3 {
					c := ts.dial()
					c.send(get)
					c.want(200, "Hello, World!")
					c.send(request)
					a := c.answer()
					if a.StatusCode != http.StatusInsufficientStorage || !a.Close || a.err != nil {
						t.Errorf("answer %v %q, %v", a.Status, a.body, a.err)
					}
					c.wantEnd()
				}
				if n := ts.Stats().BodyErrors; n != 3 {
					t.Errorf("BodyErrors = %d, want 3", n)
				}
				line := ts.logs.next(t, "request body could not be stored")
				if line.attrs["peer"] == nil || line.attrs["err"] == nil {
					t.Errorf("log line %v", line.attrs)
				}
				ts.stop()
				if handled != 3 {
					t.Errorf("the handler ran %d times, want 3", handled)
				}
			})
		}
	}
}

// goneDirectory is one that was there when the server was configured.
func goneDirectory(t *testing.T) string { return filepath.Join(t.TempDir(), "gone") }

// tinyDisk is a file system with room for some pages.
func tinyDisk(t *testing.T) string {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a file system")
	}
	directory := t.TempDir()
	if err := syscall.Mount("tmpfs", directory, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mounting a file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(directory, 0); err != nil {
			t.Errorf("the file system is still in use: %v", err)
		}
	})
	return directory
}

// What a handler keeps of a body is of no use to it once it has returned, and
// what it did not read is not in the way of the next request.
func TestBodyAfterTheHandler(t *testing.T) {
	for name, size := range map[string]int{"memory": 10_000, "file": 300_000} {
		t.Run(name, func(t *testing.T) {
			bodies := make(chan io.ReadCloser, 1)
			ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					some := make([]byte, 100)
					if _, err := io.ReadFull(r.Body, some); err != nil || string(some) != pattern(100) {
						t.Errorf("partial read: %q, %v", some, err)
					}
					bodies <- r.Body
				}
			})
			c := ts.dial()
			c.send(post(pattern(size)), get)
			c.want(200, "")
			c.want(200, "")
			body := waitFor(t, bodies)
			if n, err := body.Read(make([]byte, 10)); n != 0 || !errors.Is(err, http.ErrBodyReadAfterClose) {
				t.Errorf("Read after the handler = %d, %v", n, err)
			}
			if err := body.Close(); err != nil {
				t.Errorf("Close = %v", err)
			}
		})
	}
}

func TestBodyClosedByTheHandler(t *testing.T) {
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		if err := r.Body.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
		if _, err := r.Body.Read(make([]byte, 1)); !errors.Is(err, http.ErrBodyReadAfterClose) {
			t.Errorf("Read after Close: %v", err)
		}
	})
	c := ts.dial()
	c.send(post("hello"), post("again"))
	c.want(200, "")
	c.want(200, "")
}

// The reader of a body may outlive the handler by a moment: RoundTrip's
// goroutines do. It reads the right bytes or gets an error.
func TestBodyReadDuringReturn(t *testing.T) {
	whole := pattern(50_000)
	done := make(chan error, 64)
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		body := r.Body
		go func() {
			var got bytes.Buffer
			_, err := io.Copy(&got, body)
			if !strings.HasPrefix(whole, got.String()) {
				err = errors.New("bytes of another request")
			}
			if errors.Is(err, http.ErrBodyReadAfterClose) {
				err = nil
			}
			done <- err
		}()
	})
	c := ts.dial()
	for range 100 {
		c.send(post(whole))
		c.want(200, "")
		if err := waitFor(t, done); err != nil {
			t.Fatal(err)
		}
	}
}

// Files that ParseMultipartForm has made are gone when the answer is.
func TestMultipartFilesAreRemoved(t *testing.T) {
	names := make(chan string, 1)
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(10); err != nil {
			t.Error(err)
			return
		}
		file, err := r.MultipartForm.File["upload"][0].Open()
		if err != nil {
			t.Error(err)
			return
		}
		defer file.Close()
		named, ok := file.(*os.File)
		if !ok {
			t.Errorf("the upload is no file but a %T", file)
			return
		}
		names <- named.Name()
	})
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile("upload", "name")
	if err != nil {
		t.Fatal(err)
	}
	// Of files up to 10 MiB together ParseMultipartForm keeps its own reserve
	// for fields in memory; only beyond that it writes them.
	_, _ = part.Write(make([]byte, 100_000))
	form.Close()
	c := ts.dial()
	c.send(post(body.String(), "Content-Type: "+form.FormDataContentType()))
	c.want(200, "")
	name := waitFor(t, names)
	if _, err := os.Stat(name); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", name, err)
	}
}
