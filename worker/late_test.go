package worker

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// What a goroutine writes after its handler has returned is an error and
// reaches nobody.
func TestWriteAfterReturn(t *testing.T) {
	writers := make(chan http.ResponseWriter, 1)
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		hello(w, r)
		writers <- w
	})
	c := ts.dial()
	c.send(get)
	c.want(200, "Hello, World!")
	w := waitFor(t, writers)
	if n, err := io.WriteString(w, "late"); n != 0 || err == nil {
		t.Errorf("WriteString = %d, %v", n, err)
	}
	if n, err := w.Write([]byte("late")); n != 0 || err == nil {
		t.Errorf("Write = %d, %v", n, err)
	}
	if n, err := w.(io.ReaderFrom).ReadFrom(strings.NewReader("late")); n != 0 || err == nil {
		t.Errorf("ReadFrom = %d, %v", n, err)
	}
	if err := http.NewResponseController(w).Flush(); err == nil {
		t.Error("Flush succeeds")
	}
	if _, _, err := http.NewResponseController(w).Hijack(); err == nil {
		t.Error("Hijack succeeds")
	}
	if err := http.NewResponseController(w).SetWriteDeadline(time.Time{}); err == nil {
		t.Error("SetWriteDeadline succeeds, on what the reactor may be looking at")
	}
	w.WriteHeader(500)
	w.Header().Set("X-Late", "x")
	c.send(get)
	if a := c.want(200, "Hello, World!"); a.Header.Get("X-Late") != "" {
		t.Errorf("header %v", a.Header)
	}
}

// The same while the handler returns and the connection goes on: whatever the
// goroutine manages to write belongs to its own answer. (The race detector
// looks on.)
func TestWriteDuringReturn(t *testing.T) {
	var writers sync.WaitGroup
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		mark := r.URL.Path[1:]
		started := make(chan struct{})
		writers.Go(func() {
			close(started)
			for range 50 {
				_, err := io.WriteString(w, mark)
				w.(http.Flusher).Flush()
				w.WriteHeader(500)
				if err != nil {
					return
				}
			}
		})
		<-started
	})
	c := ts.dial()
	for i := range 300 {
		mark := string(rune('a' + i%26))
		c.send(getPath("/" + mark))
		if a := c.answer(); a.err != nil || strings.Trim(a.body, mark) != "" {
			t.Fatalf("answer to %s: %q, %v", mark, a.body, a.err)
		}
	}
	writers.Wait()
}

// kept is what a handler kept of a request, and what it looked like then.
type kept struct {
	request *http.Request
	header  http.Header
	first   string
}

func look(r *http.Request) string {
	var b strings.Builder
	fmt.Fprintln(&b, r.Method, r.RequestURI, r.URL.String(), r.URL.Path, r.Proto, r.Host, r.RemoteAddr, r.ContentLength, r.Close, r.TransferEncoding)
	for _, key := range []string{"A", "B", "C", "D", "E", "F", "G", "H", "Content-Type", "User-Agent", "X-Long"} {
		fmt.Fprintln(&b, key, r.Header[key])
	}
	fmt.Fprintln(&b, r.Trailer, r.Context().Err() == nil)
	return b.String()
}

// A handler may keep requests, headers and strings for ever: they never
// change, whatever comes over the same connection and from others. What may
// change is that the context ends.
func TestKeptRequestsNeverChange(t *testing.T) {
	const clients, rounds = 4, 150
	var mu sync.Mutex
	var all []kept
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		k := kept{r, r.Header, look(r)}
		mu.Lock()
		all = append(all, k)
		mu.Unlock()
		// Whoever appends to one value must not reach its neighbour.
		for key := range r.Header {
			if key != "B" {
				_ = append(r.Header[key], "appended")
			}
		}
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	}, func(o *Options) { o.MaxThreads = 2 })
	var done sync.WaitGroup
	for n := range clients {
		c := ts.dial()
		done.Go(func() {
			for i := range rounds {
				id := fmt.Sprintf("%d-%d", n, i)
				lines := []string{"A: a" + id, "B: b" + id, "B: bb" + id, "Content-Type: text/" + id, "User-Agent: " + id, "X-Long: " + strings.Repeat(id, i)}
				for j := range i % 9 {
					lines = append(lines, string(rune('C'+j%6))+": "+id)
				}
				body := strings.Repeat(id, 1+i%50)
				// Two at once, the second in two pieces: all ways into memory.
				request := strings.Replace(post(body, lines...), "POST /", "POST /"+id+"?"+id, 1)
				c.send(getPath("/get"+id, lines...), request[:len(request)/2])
				c.send(request[len(request)/2:])
				for _, want := range []string{"", body} {
					if a := c.answer(); a.err != nil || a.body != want {
						t.Errorf("answer %q, %v", clip(a.body), a.err)
						return
					}
				}
			}
		})
	}
	looked := make(chan struct{})
	go func() { // somebody always looks at the numbers
		defer close(looked)
		for range 200 {
			_ = ts.Stats()
		}
	}()
	done.Wait()
	waitFor(t, looked)
	mu.Lock()
	defer mu.Unlock()
	if len(all) != 2*clients*rounds {
		t.Fatalf("%d requests seen, want %d", len(all), 2*clients*rounds)
	}
	for _, k := range all {
		if k.request.Context().Err() == nil {
			t.Error("a context goes on after its handler")
		}
		if now := strings.Replace(look(k.request), "false\n", "true\n", 1); now != strings.Replace(k.first, "false\n", "true\n", 1) {
			t.Fatalf("a kept request has changed from\n%sto\n%s", k.first, now)
		}
		if !maps.EqualFunc(k.header, k.request.Header, func(a, b []string) bool { return strings.Join(a, "\n") == strings.Join(b, "\n") }) {
			t.Fatalf("a kept header has changed: %v", k.header)
		}
	}
}

// A response's header map is the handler's for ever, too.
func TestKeptResponseHeader(t *testing.T) {
	headers := make(chan http.Header, 2)
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Path", r.URL.Path)
		headers <- w.Header()
		hello(w, r)
	})
	c := ts.dial()
	c.send(getPath("/1"))
	c.want(200, "Hello, World!")
	first := waitFor(t, headers)
	c.send(getPath("/2"))
	if a := c.want(200, "Hello, World!"); a.Header.Get("X-Path") != "/2" {
		t.Errorf("header %v", a.Header)
	}
	if first.Get("X-Path") != "/1" {
		t.Errorf("the kept header is now %v", first)
	}
}

// Bytes given to Write are the handler's again when Write returns.
func TestWrittenBytesAreCopied(t *testing.T) {
	const size, rounds = 30_000, 200
	returned := make(chan struct{})
	ts := startServer(t, func(w http.ResponseWriter, _ *http.Request) {
		p := make([]byte, size)
		for i := range rounds {
			for j := range p {
				p[j] = byte('a' + i%26)
			}
			if n, err := w.Write(p); n != size || err != nil {
				t.Errorf("Write = %d, %v", n, err)
			}
		}
		clear(p)
		close(returned)
	}, func(o *Options) { o.OutputMemory = 4 * size * rounds })
	c := ts.dial()
	c.send(get)
	waitFor(t, returned) // more than a socket holds: the rest is in memory
	a := c.answer()
	var want bytes.Buffer
	for i := range rounds {
		want.Write(bytes.Repeat([]byte{byte('a' + i%26)}, size))
	}
	if a.body != want.String() {
		t.Errorf("%d bytes, not those that were written", len(a.body))
	}
}
