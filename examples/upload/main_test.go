package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/catamount-server/catamount"
	"github.com/catamount-server/catamount/examples/internal/serving"
)

func TestMain(m *testing.M) { serving.Main(m) }

func largeSize() int64 {
	if testing.Short() {
		return 16 << 20
	}
	return 1 << 30
}

// source is a body of pseudorandom bytes. It remembers their checksum.
type source struct {
	io.Reader
	sum hash.Hash
}

func newSource(seed byte, size int64) *source {
	sum := sha256.New()
	return &source{io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{seed}), size), sum), sum}
}

// watched looks at the memory every so many bytes.
type watched struct {
	io.ReadCloser
	memory *serving.Memory
	every  int64
	next   int64
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if w.next -= int64(n); w.next < 0 {
		w.memory.Look()
		w.next = w.every
	}
	return n, err
}

// openIn lists the open descriptors of files in a folder, named or not.
func openIn(folder string) (open []string) {
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, folder+"/") {
			open = append(open, target)
		}
	}
	return open
}

// waitForNone waits until no file in the folder is open. The garbage collector
// would close a forgotten one some day: it has to do without that.
func waitForNone(t *testing.T, folder string) {
	t.Helper()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	serving.Until(t, "the files are gone", func() bool { return len(openIn(folder)) == 0 })
}

// A large body goes to the handler whole, in constant memory, and by a file
// that has no name and leaves nothing.
func TestLargeUpload(t *testing.T) {
	size, folder := largeSize(), t.TempDir()
	var memory *serving.Memory
	handler := uploads()
	// Little memory, so that most of it goes to the file.
	s := serving.Start(t, &catamount.Server{BodyDirectory: folder, BodyMemoryTotal: 4 << 20, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if open := openIn(folder); len(open) != 1 || !strings.HasSuffix(open[0], " (deleted)") {
			t.Errorf("open files: %q", open)
		}
		if named, err := os.ReadDir(folder); len(named) > 0 || err != nil {
			t.Errorf("files: %v, %v", named, err)
		}
		r.Body = &watched{r.Body, memory, size / 64, 0}
		handler.ServeHTTP(w, r)
	})})
	memory = serving.WatchMemory()
	for name, length := range map[string]int64{"with its length": size, "in chunks": -1} {
		body := newSource(1, size)
		r := serving.NewRequest(t, "PUT", s.URL+"/raw", &watched{io.NopCloser(body), memory, size / 64, 0})
		r.ContentLength = length
		began := time.Now()
		answer, got := s.Do(t, r)
		if want := fmt.Sprintf("%d bytes, %x\n", size, body.sum.Sum(nil)); answer.StatusCode != 200 || got != want {
			t.Errorf("%s: %s %q, want %q", name, answer.Status, got, want)
		}
		t.Logf("%s: %v", name, time.Since(began))
		waitForNone(t, folder)
	}
	memory.Check(t, 32<<20)
}

// Several at once, interleaved, do not get mixed up.
func TestManyUploads(t *testing.T) {
	const clients = 8
	size, folder := largeSize()/clients/4, t.TempDir()
	s := serving.Start(t, &catamount.Server{BodyDirectory: folder, BodyMemoryTotal: 8 << 20, Handler: uploads(), MaxThreads: 2})
	memory := serving.WatchMemory()
	var group sync.WaitGroup
	for i := range clients {
		group.Go(func() {
			body := newSource(byte(i), size)
			answer, err := s.Client.Do(serving.NewRequest(t, "PUT", s.URL+"/raw", body))
			if err != nil {
				t.Error(err)
				return
			}
			defer answer.Body.Close()
			got, err := io.ReadAll(answer.Body)
			memory.Look()
			if want := fmt.Sprintf("%d bytes, %x\n", size, body.sum.Sum(nil)); string(got) != want || err != nil {
				t.Errorf("%q, want %q, %v", got, want, err)
			}
		})
	}
	group.Wait()
	waitForNone(t, folder)
	memory.Check(t, 32<<20)
}

// A form with a file: net/http keeps what is too large for its own memory in a
// file of its own, which is removed after the request.
func TestForm(t *testing.T) {
	folder, temporary := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", temporary)
	s := serving.Start(t, &catamount.Server{BodyDirectory: folder, Handler: uploads()})
	for _, size := range []int64{0, 1000, 200_000, largeSize() / 4} {
		memory := serving.WatchMemory()
		content := newSource(1, size)
		r, w := io.Pipe()
		form := multipart.NewWriter(w)
		go func() {
			_ = form.WriteField("title", "a title")
			part, err := form.CreateFormFile("file", "random.bin")
			if err == nil {
				_, err = io.Copy(part, content)
			}
			if err == nil {
				err = form.Close()
			}
			_ = w.CloseWithError(err)
		}()
		request := serving.NewRequest(t, "POST", s.URL+"/form", &watched{r, memory, size/64 + 1, 0}, "Content-Type", form.FormDataContentType())
		answer, got := s.Do(t, request)
		if want := fmt.Sprintf("a title: random.bin: %d bytes, %x\n", size, content.sum.Sum(nil)); got != want {
			t.Errorf("%s %q, want %q", answer.Status, got, want)
		}
		serving.Until(t, "the files are gone", func() bool {
			named, err := os.ReadDir(temporary)
			return err == nil && len(named) == 0
		})
		waitForNone(t, folder)
		memory.Look()
		memory.Check(t, 32<<20)
	}
}

// Uploads that do not go on hold no place: others are served on the only one.
func TestSlowUploadsHoldNoPlace(t *testing.T) {
	folder := t.TempDir()
	s := serving.Start(t, &catamount.Server{BodyDirectory: folder, Handler: uploads(), MaxThreads: 1})
	const size = 200_000
	half := bytes.Repeat([]byte("x"), size/2)
	var slow []net.Conn
	for range 20 {
		conn, err := net.Dial("tcp", s.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "PUT /raw HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", size, half)
		slow = append(slow, conn)
	}
	serving.Until(t, "all have begun", func() bool { return s.Catamount.Stats().Connections["body"] == len(slow) })
	want := fmt.Sprintf("5 bytes, %x\n", sha256.Sum256([]byte("hello")))
	if _, got := s.Do(t, serving.NewRequest(t, "PUT", s.URL+"/raw", strings.NewReader("hello"))); got != want {
		t.Errorf("beside slow uploads: %q, want %q", got, want)
	}
	for i, conn := range slow {
		if i%2 == 1 {
			conn.Close() // gives up
			continue
		}
		if _, err := conn.Write(half); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("%d bytes, %x\n", size, sha256.Sum256(bytes.Repeat(half, 2)))
		if answer, err := io.ReadAll(conn); err != nil || !strings.HasSuffix(string(answer), "\r\n\r\n"+want) {
			t.Errorf("%q, %v", answer, err)
		}
	}
	waitForNone(t, folder)
	serving.Until(t, "those who gave up are counted", func() bool { return s.Catamount.Stats().Vanished == 10 })
	if n := s.Catamount.Stats().RequestsCount; n != 11 {
		t.Errorf("%d requests reached the handler", n)
	}
}

// What is over MaxBodyBytes never reaches the handler.
func TestTooLarge(t *testing.T) {
	s := serving.Start(t, &catamount.Server{Handler: uploads(), MaxBodyBytes: 1000, BodyDirectory: t.TempDir()})
	for _, chunked := range []bool{false, true} {
		for size, status := range map[int64]int{1000: 200, 1001: 413, 200_000: 413} {
			var body io.Reader = bytes.NewReader(make([]byte, size))
			if chunked {
				body = io.MultiReader(body)
			}
			if answer, got := s.Do(t, serving.NewRequest(t, "PUT", s.URL+"/raw", body)); answer.StatusCode != status {
				t.Errorf("%d bytes, chunked %t: %s %q", size, chunked, answer.Status, got)
			}
		}
	}
	if n := s.Catamount.Stats().RequestsCount; n != 2 {
		t.Errorf("%d requests reached the handler", n)
	}
}
