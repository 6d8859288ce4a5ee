package worker

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pattern is content in which a lost or doubled byte shows.
func noise(n int) []byte {
	p := make([]byte, n)
	r := rand.NewChaCha8([32]byte{7})
	_, _ = r.Read(p)
	return p
}

// spilling lets answers wait in files.
func spilling(memory int) func(*Options) {
	return func(o *Options) {
		o.OutputMemory, o.OutputFile, o.OutputFileTotal = memory, 64<<20, 1<<30
	}
}

// A handler that writes much to a client that reads slowly does not wait for
// it: memory up to the limit, a file beyond, every byte in its place, and nothing
// is left of it afterwards.
func TestSpill(t *testing.T) {
	body := noise(3 << 20)
	for name, test := range map[string]struct {
		change func(*Options)
		writes int // bytes a Write
		chunks bool
	}{
		"one write":                {spilling(100_000), len(body), false},
		"many writes":              {spilling(100_000), 10_000, false},
		"chunked":                  {spilling(100_000), 50_000, true},
		"no memory at all":         {spilling(0), 10_000, false},
		"memory is short together": {func(o *Options) { spilling(100_000)(o); o.OutputMemoryTotal = 1 }, 10_000, true},
	} {
		t.Run(name, func(t *testing.T) {
			returned := make(chan time.Time, 2)
			handler := func(w http.ResponseWriter, _ *http.Request) {
				if !test.chunks {
					w.Header().Set("Content-Length", fmt.Sprint(len(body)))
				}
				for p := body; len(p) > 0; p = p[min(len(p), test.writes):] {
					if _, err := w.Write(p[:min(len(p), test.writes)]); err != nil {
						t.Error(err)
						return
					}
				}
				returned <- time.Now()
			}
			inBubble(t, handler, func(o *Options) { only(func(*Timeouts) {})(o); test.change(o) }, func(t *testing.T, k *fakeKernel) {
				c := k.connect()
				c.setRoom(20_000)
				start := time.Now()
				c.send(get + get) // the second answer comes behind the first
				if at := waitFor(t, returned); at != start {
					t.Errorf("the handler waited %v", at.Sub(start))
				}
				if st := k.Stats(); st.HeldFiles < 2<<20 || st.HeldMemory > 200_000 || st.BusyThreads != 0 {
					t.Errorf("held: %d in files, %d in memory, %d places", st.HeldFiles, st.HeldMemory, st.BusyThreads)
				}
				var got bytes.Buffer
				for range 1000 {
					k.pass(time.Second)
					c.take(50_000)
					got.WriteString(c.received())
				}
				k.wantAnswers(&got, body, body)
				if st := k.Stats(); st.HeldFiles != 0 || st.HeldMemory != 0 {
					t.Errorf("still held: %d in files, %d in memory", st.HeldFiles, st.HeldMemory)
				}
			})
		})
	}
}

// wantAnswers reads answers with these bodies and nothing else.
func (k *fakeKernel) wantAnswers(got *bytes.Buffer, bodies ...[]byte) {
	k.t.Helper()
	c := bufio.NewReader(got)
	for i, want := range bodies {
		r, err := http.ReadResponse(c, nil)
		if err != nil {
			k.t.Fatalf("answer %d: %v", i, err)
		}
		if body, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(body, want) {
			k.t.Fatalf("answer %d: %d bytes, %v; want %d", i, len(body), err, len(want))
		}
	}
	if rest, _ := io.ReadAll(c); len(rest) > 0 {
		k.t.Fatalf("%d bytes more: %q", len(rest), clip(string(rest)))
	}
}

// Where files may not be, cannot be, or are full, the handler waits instead, and
// loses nothing.
func TestSpillImpossible(t *testing.T) {
	body := noise(1 << 20)
	for name, test := range map[string]struct {
		change func(*Options)
		logged bool
	}{
		"off":       {func(o *Options) { o.OutputFile = 0 }, false},
		"too large": {func(o *Options) { o.OutputFile = 500_000 }, false},
		"all full":  {func(o *Options) { o.OutputFileTotal = 100_000 }, false},
		"no directory": {func(o *Options) {
			o.BodyDirectory = filepath.Join(t.TempDir(), "missing")
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			handler := func(w http.ResponseWriter, _ *http.Request) {
				for p := body; len(p) > 0; p = p[min(len(p), 30_000):] {
					_, _ = w.Write(p[:min(len(p), 30_000)])
				}
			}
			change := func(o *Options) { only(func(*Timeouts) {})(o); spilling(50_000)(o); test.change(o) }
			inBubble(t, handler, change, func(t *testing.T, k *fakeKernel) {
				c := k.connect()
				c.setRoom(0)
				c.send(get)
				if busy := k.Stats().BusyThreads; busy != 1 {
					t.Errorf("%d places busy: the handler does not wait", busy)
				}
				var got bytes.Buffer
				for range 100 {
					c.take(20_000)
					got.WriteString(c.received())
				}
				k.wantAnswers(&got, body)
				if n := k.Stats().SpillErrors; (n > 0) != test.logged {
					t.Errorf("%d errors counted", n)
				}
				if held := k.Stats().HeldFiles; held != 0 {
					t.Errorf("%d bytes still held", held)
				}
			})
		})
	}
}

// What the socket has refused is sent when there is room, not when the handler
// writes again.
func TestReactorSendsWhileHandlerGoesOn(t *testing.T) {
	body := noise(100_000)
	for name, memory := range map[string]int{"memory": 1 << 20, "file": 1000} {
		t.Run(name, func(t *testing.T) {
			handler := func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", fmt.Sprint(2*len(body)))
				_, _ = w.Write(body)
				<-time.After(time.Hour)
				_, _ = w.Write(body)
			}
			inBubble(t, handler, func(o *Options) { only(func(t *Timeouts) { t.Idle = 75 * time.Second })(o); spilling(memory)(o) }, func(t *testing.T, k *fakeKernel) {
				c := k.connect()
				c.setRoom(10_000)
				c.send(get)
				var got bytes.Buffer
				for range 10 {
					k.pass(time.Second)
					c.take(20_000)
					got.WriteString(c.received())
				}
				if _, sent, _ := strings.Cut(got.String(), "\r\n\r\n"); sent != string(body) {
					t.Errorf("%d bytes of %d before the handler went on", len(sent), len(body))
				}
				before := k.poller.Waits()
				k.pass(10 * time.Minute)
				if looks := k.poller.Waits() - before; looks > 100 {
					t.Errorf("the reactor woke up %d times while nothing happened", looks)
				}
				c.setRoom(-1)
				k.pass(time.Hour)
				got.WriteString(c.received())
				k.wantAnswers(&got, append(bytes.Clone(body), body...))
			})
		})
	}
}

// tempFile is a file with the content, at its start.
func tempFile(t testing.TB, content []byte) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "content"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	return f
}

// A file that a handler copies is the reactor's to send: the handler returns, and
// may close and remove it.
func TestSendFile(t *testing.T) {
	content := noise(2 << 20)
	small := content[:1000]
	for name, test := range map[string]struct {
		handler func(w http.ResponseWriter, f *os.File) (int64, error)
		want    [][]byte
		n       int64
		waits   bool // the handler has to
		copied  bool // not by sendfile
	}{
		"io.Copy": {func(w http.ResponseWriter, f *os.File) (int64, error) {
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			return io.Copy(w, f)
		}, [][]byte{content}, int64(len(content)), false, false},
		"ReadFrom": {func(w http.ResponseWriter, f *os.File) (int64, error) {
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			return w.(io.ReaderFrom).ReadFrom(f)
		}, [][]byte{content}, int64(len(content)), false, false},
		"a part": {func(w http.ResponseWriter, f *os.File) (int64, error) {
			w.Header().Set("Content-Length", "100000")
			_, _ = f.Seek(1000, io.SeekStart)
			n, err := io.CopyN(w, f, 100_000)
			if at, _ := f.Seek(0, io.SeekCurrent); at != 101_000 {
				t.Errorf("the file is at %d afterwards", at)
			}
			return n, err
		}, [][]byte{content[1000:101_000]}, 100_000, false, false},
		"something before and behind": {func(w http.ResponseWriter, f *os.File) (int64, error) {
			w.Header().Set("Content-Length", fmt.Sprint(len(content)+2000))
			_, _ = w.Write(small)
			n, err := io.Copy(w, f)
			_, _ = w.Write(small)
			return n, err
		}, [][]byte{small, content, small}, int64(len(content)), true, false},
		"twice": {func(w http.ResponseWriter, f *os.File) (int64, error) {
			w.Header().Set("Content-Length", fmt.Sprint(2*len(content)))
			_, _ = io.Copy(w, f)
			_, _ = f.Seek(0, io.SeekStart)
			return io.Copy(w, f)
		}, [][]byte{content, content}, int64(len(content)), true, false},
		"without a length": {func(w http.ResponseWriter, f *os.File) (int64, error) {
			return io.Copy(w, f)
		}, [][]byte{content}, int64(len(content)), false, true},
		"small": {func(w http.ResponseWriter, f *os.File) (int64, error) {
			w.Header().Set("Content-Length", "1000")
			return io.CopyN(w, f, 1000)
		}, [][]byte{small}, 1000, false, true},
		"not a file": {func(w http.ResponseWriter, _ *os.File) (int64, error) {
			return io.Copy(w, bytes.NewReader(content))
		}, [][]byte{content}, int64(len(content)), false, true},
	} {
		t.Run(name, func(t *testing.T) {
			returned := make(chan bool, 1)
			handler := func(w http.ResponseWriter, _ *http.Request) {
				f := tempFile(t, content)
				n, err := test.handler(w, f)
				if n != test.n || err != nil {
					t.Errorf("%d, %v; want %d", n, err, test.n)
				}
				f.Close()
				_ = os.Remove(f.Name())
				returned <- true
			}
			sent := 0
			change := func(o *Options) {
				only(func(*Timeouts) {})(o)
				spilling(100_000)(o)
				inner := o.sockets.sendFile
				o.sockets.sendFile = func(fd, file int, offset, n int64) (int, error) {
					size, err := inner(fd, file, offset, n)
					sent += size
					return size, err
				}
			}
			inBubble(t, handler, change, func(t *testing.T, k *fakeKernel) {
				c := k.connect()
				c.setRoom(50_000)
				c.send(get)
				if test.waits == (len(returned) > 0) {
					t.Errorf("the handler waits: %v, want %v", len(returned) == 0, test.waits)
				}
				var got bytes.Buffer
				for range 100 {
					c.take(100_000)
					got.WriteString(c.received())
				}
				waitFor(t, returned)
				k.wantAnswers(&got, bytes.Join(test.want, nil))
				if st := k.Stats(); st.HeldFiles != 0 || st.HeldMemory != 0 {
					t.Errorf("still held: %d in files, %d in memory", st.HeldFiles, st.HeldMemory)
				}
				if name != "without a length" && name != "not a file" && (sent == 0) != test.copied {
					t.Errorf("%d bytes by sendfile", sent)
				}
			})
		})
	}
}

// A HEAD request sends no byte of a file, but says how long it is.
func TestSendFileHead(t *testing.T) {
	content := noise(100_000)
	f := tempFile(t, content)
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "content.bin", time.Time{}, f)
	})
	c := ts.dial()
	c.send("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
	if a := c.answerTo(http.MethodHead); a.ContentLength != int64(len(content)) || a.body != "" {
		t.Errorf("length %d, body of %d", a.ContentLength, len(a.body))
	}
	c.send(getPath("/", "Range: bytes=10-89999"))
	if a := c.answer(); a.StatusCode != 206 || a.body != string(content[10:90_000]) {
		t.Errorf("%d with %d bytes", a.StatusCode, len(a.body))
	}
}

// A file that becomes shorter while it is sent cuts the answer: the client must
// not take it for whole.
func TestSentFileShrinks(t *testing.T) {
	content := noise(1 << 20)
	f := tempFile(t, content)
	handler := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		_, _ = io.Copy(w, f)
	}
	inBubble(t, handler, only(func(*Timeouts) {}), func(t *testing.T, k *fakeKernel) {
		c := k.connect()
		c.setRoom(10_000)
		c.send(get)
		if err := f.Truncate(100_000); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			c.take(100_000)
		}
		if c.state().closedAt.IsZero() {
			t.Error("the connection goes on")
		}
		k.wantUndelivered("other", "/")
	})
}

// The application is told of answers that did not arrive, with what the log
// says; its panic harms nobody.
func TestWriteFailureHook(t *testing.T) {
	told := make(chan WriteFailure, 1)
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(64<<20))
		w.WriteHeader(http.StatusAccepted)
		piece := make([]byte, 1<<20)
		<-r.Context().Done()
		for {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	}, func(o *Options) {
		o.OnWriteFailure = func(f WriteFailure) {
			told <- f
			panic("in the hook")
		}
	})
	c := ts.dial()
	c.send(getPath("/some/path"))
	ts.waitState(StateQueued, 1)
	c.reset()
	f := waitFor(t, told)
	if f.Request.URL.Path != "/some/path" || f.Status != 202 || f.Total != 64<<20 || f.Written < 0 || f.Written >= f.Total ||
		!f.Left || f.Gone < 0 || f.Elapsed < f.Gone || f.Err == nil || f.Cause != FailureReset && f.Cause != FailureBrokenPipe {
		t.Errorf("told %+v", f)
	}
	line := ts.logs.next(t, "response not delivered")
	if left, _ := line.attrs["client_left"].(string); !strings.HasSuffix(left, " ago") {
		t.Errorf("line %v does not say when the client left", line.attrs)
	}
	ts.logs.next(t, "a hook panicked")
}

// WriteTimeout counts from when the handler starts, as in net/http: an answer
// that comes too late does not come.
func TestWriteTimeoutOfSlowHandler(t *testing.T) {
	for name, test := range map[string]struct {
		handler func(w http.ResponseWriter) error
		arrives bool
	}{
		"late":           {func(w http.ResponseWriter) error { return nil }, false},
		"late and large": {func(w http.ResponseWriter) error { _, err := w.Write(make([]byte, 100_000)); return err }, false},
		"late flush":     {func(w http.ResponseWriter) error { return http.NewResponseController(w).Flush() }, false},
		"moved": {func(w http.ResponseWriter) error {
			if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Error(err)
			}
			return nil
		}, true},
		"taken away": {func(w http.ResponseWriter) error { return http.NewResponseController(w).SetWriteDeadline(time.Time{}) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			handler := func(w http.ResponseWriter, _ *http.Request) {
				<-time.After(2 * time.Minute)
				if err := test.handler(w); err != nil && (test.arrives || !errors.Is(err, os.ErrDeadlineExceeded)) {
					t.Errorf("the handler got %v", err)
				}
			}
			inBubble(t, handler, only(func(t *Timeouts) { t.Write = time.Minute }), func(t *testing.T, k *fakeKernel) {
				c := k.connect()
				c.send(get)
				k.pass(3 * time.Minute)
				if got := c.received(); strings.HasPrefix(got, "HTTP/1.1 200") != test.arrives {
					t.Errorf("answer %q", clip(got))
				}
				if !test.arrives {
					if c.state().closedAt.IsZero() {
						t.Error("the connection goes on")
					}
					k.wantUndelivered("deadline", "/")
				}
			})
		})
	}
}

// Many slow readers: no place is held once the handlers have returned, memory
// stays within the limit, and others are served.
func TestManySlowReaders(t *testing.T) {
	const readers, size = 20, 8 << 20 // the kernel takes up to 4 MiB of each
	body := noise(size)
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/big" {
			_, _ = w.Write(body)
		}
	}, func(o *Options) {
		spilling(64 << 10)(o)
		o.OutputMemoryTotal, o.MaxThreads = 1<<20, 4
	})
	var slow []*client
	for range readers {
		c := ts.dial()
		c.send(getPath("/big"))
		slow = append(slow, c)
	}
	ts.waitState(StateWriting, readers)
	ts.until("no place is held", func() bool { return ts.Stats().BusyThreads == 0 })
	st := ts.Stats()
	if st.HeldMemory > 1<<20 || st.HeldFiles == 0 {
		t.Errorf("%d bytes in memory, %d in files", st.HeldMemory, st.HeldFiles)
	}
	c := ts.dial()
	c.send(get)
	c.want(200, "")
	for i, s := range slow {
		if i%2 == 0 {
			s.reset()
		} else if a := s.answer(); a.body != string(body) {
			t.Errorf("%d bytes, %v", len(a.body), a.err)
		}
	}
	ts.until("nothing is held", func() bool { st := ts.Stats(); return st.HeldFiles == 0 && st.HeldMemory == 0 })
}

// sendfile refuses some files; they are copied.
func TestSendFileFallback(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	f, err := os.Open("/proc/self/status") // a file without pages
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, err := sendFile(pair[0], int(f.Fd()), 0, 10)
	got := make([]byte, 10)
	if _, readErr := unix.Read(pair[1], got); n != 10 || err != nil || readErr != nil || string(got[:5]) != "Name:" {
		t.Errorf("sendFile = %d, %v; %q, %v", n, err, got, readErr)
	}
	if n, err := sendFile(pair[0], int(f.Fd()), 1<<30, 10); n != 0 || err != nil {
		t.Errorf("past the end: %d, %v", n, err)
	}
}
