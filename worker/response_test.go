package worker

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// exchangeWith serves one request with a handler and returns the raw answer.
func exchangeWith(t *testing.T, handler http.HandlerFunc, request string, changes ...func(*Options)) (raw string, ts *testServer) {
	t.Helper()
	ts = startServer(t, handler, changes...)
	c := ts.dial()
	c.send(request)
	_ = c.CloseWrite()
	return c.rest(), ts
}

// withoutDate takes the Date line out, which must be there once.
func withoutDate(t *testing.T, raw string) string {
	t.Helper()
	before, rest, found := strings.Cut(raw, "Date: ")
	_, after, _ := strings.Cut(rest, "\r\n")
	if !found || strings.Contains(after, "\r\nDate: ") {
		t.Errorf("not one Date in %q", raw)
	}
	return before + after
}

// sortFields brings the fields of an answer into an order: theirs means nothing.
func sortFields(raw string) string {
	head, body, _ := strings.Cut(raw, "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	slices.Sort(lines[1:])
	return strings.Join(lines, "\r\n") + "\r\n\r\n" + body
}

const alive = "Connection: keep-alive\r\nKeep-Alive: timeout=65\r\n"

// Each answer to the byte, but for its date and the order of its fields.
func TestFraming(t *testing.T) {
	const plain = "Content-Type: text/plain; charset=utf-8\r\n"
	write := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s) }
	}
	set := func(key string, values []string, next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { w.Header()[key] = values; next(w, r) }
	}
	flush := func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ab")
		w.(http.Flusher).Flush()
		_, _ = io.WriteString(w, "cd")
	}
	trickle := func(w http.ResponseWriter, _ *http.Request) {
		for range 10_000 {
			_, _ = w.Write([]byte{'x'})
		}
	}
	read := func(r io.Reader) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, r) }
	}
	x := strings.Repeat("x", 4096)
	for _, test := range []struct {
		name    string
		handler http.HandlerFunc
		request string
		want    string
	}{
		{"nothing", func(http.ResponseWriter, *http.Request) {}, get, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + alive + "\r\n"},
		{"small", write("hello"), get, "HTTP/1.1 200 OK\r\n" + plain + "Content-Length: 5\r\n" + alive + "\r\nhello"},
		{"sniffed", write("<html>"), get, "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 6\r\n" + alive + "\r\n<html>"},
		{"own type", set("Content-Type", []string{"x/y"}, write("hello")), get, "HTTP/1.1 200 OK\r\nContent-Type: x/y\r\nContent-Length: 5\r\n" + alive + "\r\nhello"},
		{"no type", set("Content-Type", nil, write("hello")), get, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" + alive + "\r\nhello"},
		{"encoded", set("Content-Encoding", []string{"gzip"}, write("hello")), get, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n" + alive + "\r\nhello"},
		{"own length", set("Content-Length", []string{"5"}, flush4("hel", "lo")), get, "HTTP/1.1 200 OK\r\n" + plain + "Content-Length: 5\r\n" + alive + "\r\nhello"},
		{"several values", set("X-A", []string{"1", "2"}, write("hello")), get, "HTTP/1.1 200 OK\r\nX-A: 1\r\nX-A: 2\r\n" + plain + "Content-Length: 5\r\n" + alive + "\r\nhello"},
		{"status", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(418); _, _ = io.WriteString(w, "tea") }, get, "HTTP/1.1 418 I'm a teapot\r\n" + plain + "Content-Length: 3\r\n" + alive + "\r\ntea"},
		{"unknown status", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(599) }, get, "HTTP/1.1 599 status code 599\r\nContent-Length: 0\r\n" + alive + "\r\n"},
		{"flushed", flush, get, "HTTP/1.1 200 OK\r\n" + plain + "Transfer-Encoding: chunked\r\n" + alive + "\r\n2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n"},
		{"flushed, 1.0", flush, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "HTTP/1.0 200 OK\r\n" + plain + "\r\nabcd"},
		{"flushed head", func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush(); hello(w, r) }, get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + alive + "\r\nd\r\nHello, World!\r\n0\r\n\r\n"},
		{"many small writes", trickle, get, "HTTP/1.1 200 OK\r\n" + plain + "Transfer-Encoding: chunked\r\n" + alive + "\r\n1001\r\n" + x + "x\r\n1000\r\n" + x + "\r\n70f\r\n" + x[:0x70f] + "\r\n0\r\n\r\n"},
		{"HEAD", write("hello"), "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK\r\n" + plain + "Content-Length: 5\r\n" + alive + "\r\n"},
		{"HEAD, own length", set("Content-Length", []string{"7"}, func(http.ResponseWriter, *http.Request) {}), "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n" + alive + "\r\n"},
		{"204 with a length", set("Content-Length", []string{"7"}, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }), get, "HTTP/1.1 204 No Content\r\n" + alive + "\r\n"},
		{"304 with a length and a type", set("Content-Length", []string{"7"}, set("Content-Type", []string{"x/y"}, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(304) })), get, "HTTP/1.1 304 Not Modified\r\n" + alive + "\r\n"},
		{"close", set("Connection", []string{"close"}, write("hello")), get, "HTTP/1.1 200 OK\r\nConnection: close\r\n" + plain + "Content-Length: 5\r\n\r\nhello"},
		{"own Keep-Alive", set("Keep-Alive", []string{"timeout=5"}, write("hello")), get, "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\n" + plain + "Content-Length: 5\r\nConnection: keep-alive\r\n\r\nhello"},
		{"own Connection", set("Connection", []string{"X-Hop, close-not", "Keep-Alive"}, set("X-Hop", []string{" \t1 "}, write("hello"))), get, "HTTP/1.1 200 OK\r\nX-Hop: 1\r\n" + plain + "Content-Length: 5\r\nConnection: X-Hop, close-not, keep-alive\r\nKeep-Alive: timeout=65\r\n\r\nhello"},
		{"own Connection, no option", set("Connection", []string{"no option, X-Hop", "close"}, write("hello")), get, "HTTP/1.1 200 OK\r\n" + plain + "Content-Length: 5\r\nConnection: X-Hop, close\r\n\r\nhello"},
		{"another coding", set("Transfer-Encoding", []string{"gzip"}, write("hello")), get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n" + alive + "\r\n5\r\nhello\r\n0\r\n\r\n"},
		{"another coding, 1.0", set("Transfer-Encoding", []string{"gzip"}, write("hello")), "GET / HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nhello"},
		{"another coding, and chunked", set("Transfer-Encoding", []string{"gzip, Chunked", "chunked"}, write("hello")), get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n" + alive + "\r\n5\r\nhello\r\n0\r\n\r\n"},
		{"another coding, HEAD", set("Transfer-Encoding", []string{"gzip"}, write("hello")), "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK\r\n" + alive + "\r\n"},
		{"another coding, 204", set("Transfer-Encoding", []string{"gzip"}, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }), get, "HTTP/1.1 204 No Content\r\n" + alive + "\r\n"},
		{"no coding", set("Transfer-Encoding", []string{"gzip\r\nX-A: 1"}, write("hello")), get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + alive + "\r\n5\r\nhello\r\n0\r\n\r\n"},
		{"Identity", set("Transfer-Encoding", []string{"Identity"}, flush), get, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabcd"},
		{"length in small letters", set("content-length", []string{"5"}, flush4("hel", "lo")), get, "HTTP/1.1 200 OK\r\n" + plain + "Content-Length: 5\r\n" + alive + "\r\nhello"},
		{"coding in small letters", set("transfer-encoding", []string{"chunked"}, write("hello")), get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + alive + "\r\n5\r\nhello\r\n0\r\n\r\n"},
		{"close in small letters", set("connection", []string{"close"}, write("hello")), get, "HTTP/1.1 200 OK\r\nConnection: close\r\n" + plain + "Content-Length: 5\r\n\r\nhello"},
		{"two Connections", set("connection", []string{"X-Hop"}, set("Connection", []string{"close"}, write("hello"))), get, "HTTP/1.1 200 OK\r\nConnection: X-Hop, close\r\n" + plain + "Content-Length: 5\r\n\r\nhello"},
		{"nothing written", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(nil); _, _ = io.WriteString(w, "") }, get, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + alive + "\r\n"},
		{"nothing flushed", flush4("", ""), get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + alive + "\r\n0\r\n\r\n"},
		{"sniffed across writes", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "<ht")
			_, _ = io.WriteString(w, "")
			_, _ = io.WriteString(w, "ml>")
		}, get, "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 6\r\n" + alive + "\r\n<html>"},
		{"sniffed across writes, large", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "<ht")
			_, _ = io.WriteString(w, "ml>"+x)
		}, get, "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nTransfer-Encoding: chunked\r\n" + alive + "\r\n1006\r\n<html>" + x + "\r\n0\r\n\r\n"},
		{"sniffed no further", write(strings.Repeat(" ", 512) + "<html>"), get, "HTTP/1.1 200 OK\r\n" + plain + "Content-Length: 518\r\n" + alive + "\r\n" + strings.Repeat(" ", 512) + "<html>"},
		{"empty type", set("Content-Type", []string{""}, write("hello")), get, "HTTP/1.1 200 OK\r\nContent-Type: \r\nContent-Length: 5\r\n" + alive + "\r\nhello"},
		{"empty value", set("X-A", []string{""}, write("hello")), get, "HTTP/1.1 200 OK\r\nX-A: \r\n" + plain + "Content-Length: 5\r\n" + alive + "\r\nhello"},
		{"two lengths", set("Content-Length", []string{"5", "7"}, write("hello")), get, "HTTP/1.1 200 OK\r\n" + plain + "Content-Length: 5\r\n" + alive + "\r\nhello"},
		{"negative length", set("Content-Length", []string{"-5"}, write("hello")), get, "HTTP/1.1 200 OK\r\n" + plain + "Content-Length: 5\r\n" + alive + "\r\nhello"},
		{"no length", set("Content-Length", nil, write("hello")), get, "HTTP/1.1 200 OK\r\n" + plain + "Transfer-Encoding: chunked\r\n" + alive + "\r\n5\r\nhello\r\n0\r\n\r\n"},
		{"coding and length", set("Transfer-Encoding", []string{"chunked"}, set("Content-Length", []string{"7"}, write("hello"))), get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + alive + "\r\n5\r\nhello\r\n0\r\n\r\n"},
		{"trailers and length", set("Trailer", []string{"X-A"}, set("Content-Length", []string{"5"}, set("X-A", []string{"1"}, write("hello")))), get, "HTTP/1.1 200 OK\r\nTrailer: X-A\r\nX-A: 1\r\n" + plain + "Content-Length: 5\r\n" + alive + "\r\nhello"},
		{"empty reader", read(strings.NewReader("")), get, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + alive + "\r\n"},
		{"limited reader", read(io.LimitReader(strings.NewReader("hello, world"), 5)), get, "HTTP/1.1 200 OK\r\n" + plain + "Content-Length: 5\r\n" + alive + "\r\nhello"},
		{"failing reader", read(io.MultiReader(strings.NewReader("hello"), iotest.ErrReader(io.ErrNoProgress))), get, "HTTP/1.1 200 OK\r\n" + plain + "Content-Length: 5\r\n" + alive + "\r\nhello"},
		{"101 and no Hijack", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "Upgrade")
			w.WriteHeader(101)
		}, get + get, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n"},
		{"identity", set("Transfer-Encoding", []string{"identity"}, flush), get, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabcd"},
		{"chunked by the handler", set("Transfer-Encoding", []string{"chunked"}, flush), get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + alive + "\r\n2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n"},
		{"invalid length", set("Content-Length", []string{"five"}, write("hello")), get, "HTTP/1.1 200 OK\r\n" + plain + "Content-Length: 5\r\n" + alive + "\r\nhello"},
		{"trailers", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "X-Sum, Content-Length")
			_, _ = io.WriteString(w, "hello")
			w.Header().Set("X-Sum", "1")
			w.Header().Set(http.TrailerPrefix+"X-Late", "2")
		}, get, "HTTP/1.1 200 OK\r\nTrailer: X-Sum, Content-Length\r\n" + plain + "Transfer-Encoding: chunked\r\n" + alive + "\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-Late: 2\r\n\r\n"},
		{"no trailers", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "X-Sum, x-sum, Content-Type, If-Match")
			_, _ = io.WriteString(w, "hello")
			for _, key := range []string{"X-Sum", "If-Match", http.TrailerPrefix + "content-length", http.TrailerPrefix + "Transfer-Encoding"} {
				w.Header().Set(key, "1")
			}
		}, get, "HTTP/1.1 200 OK\r\nTrailer: X-Sum, x-sum, Content-Type, If-Match\r\n" + plain + "Transfer-Encoding: chunked\r\n" + alive + "\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			raw, _ := exchangeWith(t, test.handler, test.request)
			if got, want := sortFields(withoutDate(t, raw)), sortFields(test.want); got != want {
				t.Errorf("\n got %q\nwant %q", got, want)
			}
		})
	}
}

func flush4(a, b string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, a)
		w.(http.Flusher).Flush()
		_, _ = io.WriteString(w, b)
	}
}

// A HEAD answer has no body and no framing that a GET of it would not have,
// whichever way the handler writes.
func TestHeadHasNoBody(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"small": hello,
		"flush": flush4("hel", "lo"),
		"large": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 100_000)) },
		"reader": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.(io.ReaderFrom).ReadFrom(strings.NewReader("hello"))
		},
		"own length, large": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100000")
			_, _ = w.Write(make([]byte, 100_000))
		},
		"own length 100000, nothing": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "100000") },
		"trailers":                   func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Trailer", "X"); hello(w, r) },
	} {
		t.Run(name, func(t *testing.T) {
			raw, _ := exchangeWith(t, handler, "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n"+get)
			head, rest, _ := strings.Cut(raw, "\r\n\r\n")
			if !strings.HasPrefix(head, "HTTP/1.1 200") || !strings.HasPrefix(rest, "HTTP/1.1 200") {
				t.Errorf("no two answers: %q", clip(raw))
			}
			if strings.Contains(name, "own length") && !strings.Contains(head, "Content-Length: 100000") {
				t.Errorf("head %q", head)
			}
		})
	}
}

// As net/http: what a HEAD answer has no body for needs no Transfer-Encoding.
func TestHeadHasNoTransferEncoding(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"nothing": func(http.ResponseWriter, *http.Request) {},
		"flush":   flush4("hel", "lo"),
		"large":   func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 100_000)) },
	} {
		t.Run(name, func(t *testing.T) {
			raw, _ := exchangeWith(t, handler, "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
			if strings.Contains(raw, "Transfer-Encoding") {
				t.Errorf("answer %q", raw)
			}
		})
	}
}

// The Date is the present second, also after pauses.
func TestDate(t *testing.T) {
	inBubble(t, hello, nil, func(t *testing.T, k *fakeKernel) {
		c := k.connect()
		for _, pause := range []time.Duration{0, 300 * time.Millisecond, 800 * time.Millisecond, time.Second, 2500 * time.Millisecond, time.Minute, 1, 10 * time.Millisecond, 990 * time.Millisecond} {
			k.pass(pause)
			c.send(get)
			_, rest, _ := strings.Cut(c.received(), "Date: ")
			text, _, _ := strings.Cut(rest, "\r\n")
			if want := time.Now().UTC().Format(http.TimeFormat); text != want {
				t.Errorf("after %v: Date %q, want %q", pause, text, want)
			}
		}
	})
}

func TestNoDate(t *testing.T) {
	raw, _ := exchangeWith(t, func(w http.ResponseWriter, _ *http.Request) { w.Header()["Date"] = nil }, get)
	if strings.Contains(raw, "Date:") {
		t.Errorf("answer %q", raw)
	}
	raw, _ = exchangeWith(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Date", "today") }, get)
	if strings.Count(raw, "Date:") != 1 || !strings.Contains(raw, "Date: today\r\n") {
		t.Errorf("answer %q", raw)
	}
}

// A connection that ends is announced, whatever the handler has put into
// Connection.
func TestCloseIsAnnounced(t *testing.T) {
	last := func(o *Options) { o.MaxKeepAlive = 1 }
	for _, own := range []string{"", "keep-alive", "X-Option", "Keep-Alive, X-Option", "close"} {
		for name, request := range map[string]string{"by the client": getPath("/", "Connection: close"), "by the server": get} {
			t.Run(own+" "+name, func(t *testing.T) {
				ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
					if own != "" {
						w.Header().Set("Connection", own)
					}
					hello(w, r)
				}, last)
				c := ts.dial()
				c.send(request)
				if a := c.want(200, "Hello, World!"); !a.Close {
					t.Errorf("the end is not announced; Connection: %q", a.Header["Connection"])
				}
				c.wantEnd()
			})
		}
	}
}

func TestDeclaredLength(t *testing.T) {
	t.Run("too much", func(t *testing.T) {
		ts := startServer(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "5")
			if n, err := io.WriteString(w, "hel"); n != 3 || err != nil {
				t.Errorf("writing less than declared = %d, %v", n, err)
			}
			if n, err := io.WriteString(w, "lo, World!"); n != 0 || !errors.Is(err, http.ErrContentLength) {
				t.Errorf("writing more than declared = %d, %v", n, err)
			}
			if n, err := io.WriteString(w, "lo"); n != 0 || !errors.Is(err, http.ErrContentLength) {
				t.Errorf("writing what would have fitted = %d, %v: the answer looks whole without the piece before", n, err)
			}
		})
		c := ts.dial()
		c.send(get)
		if a := c.answer(); a.err != io.ErrUnexpectedEOF || a.body != "hel" {
			t.Errorf("answer %q, %v", a.body, a.err)
		}
	})
	t.Run("too much in the end", func(t *testing.T) {
		ts := startServer(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "5")
			_, _ = io.WriteString(w, "hello")
			if n, err := io.WriteString(w, ", World!"); n != 0 || !errors.Is(err, http.ErrContentLength) {
				t.Errorf("writing more than declared = %d, %v", n, err)
			}
		})
		c := ts.dial()
		c.send(get, get)
		c.want(200, "hello")
		c.want(200, "hello")
	})
	t.Run("too little", func(t *testing.T) {
		ts := startServer(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "5")
			_, _ = io.WriteString(w, "hel")
		})
		c := ts.dial()
		c.send(get)
		if a := c.answer(); a.err != io.ErrUnexpectedEOF || a.body != "hel" {
			t.Errorf("answer %q, %v", a.body, a.err)
		}
		if n := ts.Stats().Statuses["cut"]; n != 1 {
			t.Errorf("statuses %v, want one cut", ts.Stats().Statuses)
		}
	})
	t.Run("nothing", func(t *testing.T) {
		ts := startServer(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "5") })
		c := ts.dial()
		c.send(get)
		if a := c.answer(); a.err != io.ErrUnexpectedEOF {
			t.Errorf("answer %q, %v", a.body, a.err)
		}
	})
}

func TestBodyNotAllowed(t *testing.T) {
	for _, status := range []int{204, 304} {
		ts := startServer(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "5") // which is not owed
			w.WriteHeader(status)
			if n, err := io.WriteString(w, "x"); n != 0 || !errors.Is(err, http.ErrBodyNotAllowed) {
				t.Errorf("Write = %d, %v", n, err)
			}
			if n, err := w.Write(nil); n != 0 || err != nil {
				t.Errorf("Write(nil) = %d, %v", n, err)
			}
		})
		c := ts.dial()
		c.send(get, get)
		c.want(status, "")
		c.want(status, "")
	}
}

func TestSuperfluousWriteHeader(t *testing.T) {
	raw, ts := exchangeWith(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(201)
		w.WriteHeader(500)
	}, get)
	if !strings.HasPrefix(raw, "HTTP/1.1 201") {
		t.Errorf("answer %q", raw)
	}
	line := ts.logs.next(t, "superfluous WriteHeader")
	if at := fmt.Sprint(line.attrs["at"]); !strings.Contains(at, "response_test.go:") {
		t.Errorf("the line does not name the caller: %v", line.attrs)
	}
	if in := fmt.Sprint(line.attrs["in"]); !strings.Contains(in, "TestSuperfluousWriteHeader") {
		t.Errorf("the line does not name the caller: %v", line.attrs)
	}
}

func TestImpossibleStatusPanics(t *testing.T) {
	for _, status := range []int{-1, 0, 99, 1000} {
		_, _ = exchangeWith(t, func(w http.ResponseWriter, _ *http.Request) {
			defer func() {
				if recover() == nil {
					t.Errorf("WriteHeader(%d) returned", status)
				}
			}()
			w.WriteHeader(status)
		}, get)
	}
}

// Informational answers come at once, as often as the handler likes.
func TestInformational(t *testing.T) {
	gate := make(chan struct{})
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Add("Link", "</b>")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusProcessing)
		waitFor(t, gate)
		w.Header().Del("Link")
		hello(w, r)
	})
	c := ts.dial()
	c.send(get)
	for _, want := range []struct {
		status int
		links  []string
	}{{103, []string{"</a>"}}, {103, []string{"</a>", "</b>"}}, {102, []string{"</a>", "</b>"}}} {
		if a := c.answer(); a.StatusCode != want.status || !slices.Equal(a.Header["Link"], want.links) || len(a.Header) != 1 {
			t.Errorf("answer %d %v, want %v", a.StatusCode, a.Header, want)
		}
	}
	close(gate)
	if a := c.want(200, "Hello, World!"); a.Header["Link"] != nil {
		t.Errorf("header %v", a.Header)
	}
	// HTTP/1.0 does not know them.
	old := ts.dial()
	old.send("GET / HTTP/1.0\r\n\r\n")
	if raw := old.rest(); !strings.HasPrefix(raw, "HTTP/1.0 200") {
		t.Errorf("answer %q", raw)
	}
}

// Without an advertised time a connection that goes on needs no word about it, and
// the handler's Connection is sent as it is.
func TestConnectionWithoutKeepAlive(t *testing.T) {
	quiet := func(o *Options) { o.Timeouts.AdvertisedIdle = 0 }
	for handlers, want := range map[string]string{
		"Upgrade":             "Upgrade",
		"":                    "",
		"Upgrade, keep-alive": "Upgrade, keep-alive",
	} {
		ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", handlers)
			hello(w, r)
		}, quiet)
		c := ts.dial()
		c.send(get, get)
		for range 2 {
			if a := c.want(200, "Hello, World!"); a.Header.Get("Connection") != want || a.Header["Keep-Alive"] != nil {
				t.Errorf("Connection %q becomes %q, want %q", handlers, a.Header["Connection"], want)
			}
		}
	}
}

// The server's own answer to HEAD has no body either.
func TestRefusedHeadHasNoBody(t *testing.T) {
	const head = "HEAD / HTTP/1.1\r\nHost: h\r\n"
	for name, input := range map[string]string{
		"400": head + "Host: other\r\n\r\n",
		"413": head + "Transfer-Encoding: chunked\r\n\r\nffff\r\nx",
		"417": "\r\n" + head + "Expect: more\r\n\r\n",
		"431": head + "A: " + strings.Repeat("a", 200_000) + "\r\n\r\n",
	} {
		for mode, change := range map[string]func(*Options){
			"reactor":  func(o *Options) { o.Limits.Body = 1 << 10 },
			"blocking": func(o *Options) { o.Limits.Body, o.QueueRequests = 1<<10, false },
		} {
			for _, before := range []string{"", get} {
				ts := startServer(t, hello, change)
				c := ts.dial()
				c.send(before, input)
				if before != "" {
					c.want(200, "Hello, World!")
				}
				if name == "413" {
					c.send(strings.Repeat("x", 2000))
				}
				raw := c.rest()
				if fields, body, _ := strings.Cut(raw, "\r\n\r\n"); !strings.HasPrefix(fields, "HTTP/1.1 "+name) || body != "" {
					t.Errorf("%s, %s, behind %q: answer %q", name, mode, before, raw)
				}
			}
		}
	}
}

// Writes arrive in their order, whatever their sizes and the answer's framing:
// what is held back comes before what follows it.
func TestWritesKeepTheirOrder(t *testing.T) {
	sizes := []int{0, 1, 100, 2000, 4000, 4096, 5000, 8192, 20_000, 70_000}
	for _, version := range []string{"HTTP/1.0", "HTTP/1.1"} {
		for _, declared := range []bool{false, true} {
			t.Run(fmt.Sprint(version, " declared ", declared), func(t *testing.T) {
				var pieces []string
				ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
					if declared {
						w.Header().Set("Content-Length", fmt.Sprint(len(strings.Join(pieces, ""))))
					}
					for _, piece := range pieces {
						if _, err := io.WriteString(w, piece); err != nil {
							t.Error(err)
						}
					}
				})
				for _, a := range sizes {
					for _, b := range sizes {
						for _, c := range sizes {
							pieces = []string{strings.Repeat("a", a), strings.Repeat("b", b), strings.Repeat("c", c)}
							conn := ts.dial()
							conn.send("GET / " + version + "\r\nHost: h\r\n\r\n")
							if got := conn.answer(); got.body != strings.Join(pieces, "") || got.err != nil {
								t.Fatalf("%d, %d and %d bytes arrive as %d, %v", a, b, c, len(got.body), got.err)
							}
							conn.Close()
						}
					}
				}
			})
		}
	}
}
