package catamount_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/catamount-server/catamount"
	"github.com/catamount-server/catamount/parser"
)

// wireServer answers on a real socket and notes what its handler has seen.
type wireServer struct {
	*catamount.Server
	addr string
	mu   sync.Mutex
	seen []string
}

// wireModes are the ways in which requests come to a handler.
var wireModes = map[string]func(*catamount.Server){
	"buffered": func(*catamount.Server) {},
	"streamed": func(s *catamount.Server) { s.StreamRequest = func(*http.Request) bool { return true } },
	"blocking": func(s *catamount.Server) { s.QueueRequests, s.EnableKeepAlives = new(false), new(true) },
	"blocking, streamed": func(s *catamount.Server) {
		s.QueueRequests, s.EnableKeepAlives = new(false), new(true)
		s.StreamRequest = func(*http.Request) bool { return true }
	},
}

func newWireServer(t testing.TB, mode string) *wireServer {
	w := &wireServer{}
	w.Server = &catamount.Server{
		Handler: http.HandlerFunc(w.handle), MaxHeaderBytes: 4096, MaxBodyBytes: 100,
		Limits: parser.Limits{Path: 200, Query: 100, Target: 1000, HeaderName: 50, HeaderValue: 1000, HeaderCount: 20, ChunkLine: 60, Trailer: 200},
	}
	wireModes[mode](w.Server)
	w.addr = serve(t, w.Server)
	return w
}

// handle notes the request as one line, such as "POST / host=x [hello]", and
// answers as its path says.
func (w *wireServer) handle(rw http.ResponseWriter, r *http.Request) {
	line := r.Method + " " + r.RequestURI
	if r.Host != "h" {
		line += " host=" + r.Host
	}
	body, err := io.ReadAll(r.Body)
	if len(body) > 0 {
		line += fmt.Sprintf(" [%s]", body)
	}
	if err != nil {
		line += " " + describeBodyError(err)
	}
	w.mu.Lock()
	w.seen = append(w.seen, line)
	w.mu.Unlock()

	switch r.URL.Path {
	case "/204":
		rw.WriteHeader(http.StatusNoContent)
	case "/304":
		rw.WriteHeader(http.StatusNotModified)
	case "/none":
	case "/stream":
		_, _ = io.WriteString(rw, "ab")
		rw.(http.Flusher).Flush()
		_, _ = io.WriteString(rw, "cd")
	case "/close":
		rw.Header().Set("Connection", "close")
		_, _ = io.WriteString(rw, "ok")
	default:
		_, _ = io.WriteString(rw, "ok")
	}
}

// describeBodyError names a bad body by the status that a buffered one gets.
func describeBodyError(err error) string {
	var bad *parser.Error
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &bad):
		return fmt.Sprint(bad.Status)
	case errors.As(err, &large):
		return "413"
	}
	return err.Error()
}

// take returns what the handler has seen since the last call.
func (w *wireServer) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := w.seen
	w.seen = nil
	return seen
}

// wireCase is what a client sends, what the handler sees of it, and what the
// client gets back (see describeAnswers).
type wireCase struct {
	name, input string
	seen        []string
	answers     []string
	// streamed is what the handler sees of a request whose body goes wrong, when
	// it is called before the body is here. Its answer is the last one then.
	streamed string
	// whole: not in pieces. A client that has announced its last request and
	// sends more later may meet a reset.
	whole bool
}

// whenStreamed is the case as it goes when bodies are streamed.
func (c wireCase) whenStreamed() wireCase {
	if c.streamed == "" {
		return c
	}
	before := min(len(c.seen), len(c.answers))
	c.seen = append(slices.Clip(c.seen), c.streamed)
	c.answers = append(slices.Clip(c.answers[:before]), "200 close ok")
	return c
}

// closes reports whether the server is to end the connection, unasked.
func (c *wireCase) closes() bool {
	if len(c.answers) == 0 {
		return false
	}
	last := c.answers[len(c.answers)-1]
	return strings.Contains(last, "close") && !strings.HasSuffix(c.streamed, "EOF")
}

// methods are those that the answers belong to.
func (c *wireCase) methods() (methods []string) {
	for _, line := range c.seen {
		method, _, _ := strings.Cut(line, " ")
		methods = append(methods, method)
	}
	if strings.HasPrefix(c.input, "OPTIONS *") {
		methods = append([]string{"OPTIONS"}, methods...)
	}
	return methods
}

func TestWire(t *testing.T) {
	for mode := range wireModes {
		t.Run(mode, func(t *testing.T) { testWire(t, mode) })
	}
}

func testWire(t *testing.T, mode string) {
	w := newWireServer(t, mode)
	for _, group := range [][]wireCase{goodRequests, pipelines, smuggling, badHeads, badBodies, overLimits} {
		for _, c := range group {
			if w.StreamRequest != nil {
				c = c.whenStreamed()
			}
			t.Run(c.name, func(t *testing.T) {
				w.check(t, &c, "whole", []string{c.input})
				if c.whole {
					return
				}
				if mode == "buffered" || mode == "streamed" {
					w.check(t, &c, "byte by byte", strings.Split(c.input, ""))
				}
				splits := 8
				if testing.Short() {
					splits = 3
				}
				step := max(1, len(c.input)/splits)
				for at := 1 + len(mode)%step; at < len(c.input); at += step { // elsewhere in each mode
					w.check(t, &c, fmt.Sprintf("split at %d", at), []string{c.input[:at], c.input[at:]})
					if t.Failed() {
						return
					}
				}
			})
		}
	}
}

// check sends the pieces, each only when the server has read the one before.
func (w *wireServer) check(t *testing.T, c *wireCase, how string, pieces []string) {
	t.Helper()
	w.take()
	conn := dial(t, "tcp", w.addr).(*net.TCPConn)
	defer conn.Close()
	read := w.Stats().BytesIn
	for _, piece := range pieces {
		if n, err := io.WriteString(conn, piece); err != nil {
			if !c.closes() {
				t.Fatalf("%s: sending: %v", how, err)
			}
			break
		} else {
			read += uint64(n)
		}
		if len(pieces) > 1 {
			// A connection that the server has ended is read from no more.
			until(t, how+": the server reads", func() bool {
				stats := w.Stats()
				return stats.BytesIn >= read || len(stats.Connections) == 0
			})
		}
	}
	if !c.closes() {
		_ = conn.CloseWrite()
	}
	output, err := io.ReadAll(conn)
	if err != nil {
		t.Fatalf("%s: no orderly end after %q: %v", how, output, err)
	}
	answers := describeAnswers(string(output), c.methods())
	if !slices.Contains(c.answers, "100") { // whether it is sent depends on the pieces
		answers = slices.DeleteFunc(answers, func(a string) bool { return a == "100" && strings.Contains(c.input, "100-") })
	}
	if !slices.Equal(answers, c.answers) {
		t.Fatalf("%s: answers %q, want %q; bytes %q", how, answers, c.answers, output)
	}
	if seen := w.take(); !slices.Equal(seen, c.seen) {
		t.Fatalf("%s: the handler saw %q, want %q", how, seen, c.seen)
	}
}

// A refused client reads the whole answer and then the end, never a reset,
// though it be still sending.
func TestRefusedWhileSending(t *testing.T) {
	for mode := range wireModes {
		t.Run(mode, func(t *testing.T) { testRefusedWhileSending(t, newWireServer(t, mode)) })
	}
}

func testRefusedWhileSending(t *testing.T, w *wireServer) {
	for name, head := range map[string]string{
		"413":        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 900000\r\n\r\n",
		"413 chunks": "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\ndbba0\r\n",
		"400":        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 900000\r\nContent-Length: 1\r\n\r\n",
		"417":        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 90\r\nExpect: more\r\n\r\n",
		"431":        "POST / HTTP/1.1\r\nHost: h\r\nX: ",
		"414":        "POST /",
		"501":        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n",
		"505":        "POST / HTTP/2.7\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, "tcp", w.addr).(*net.TCPConn)
			if _, err := io.WriteString(conn, head); err != nil {
				t.Fatal(err)
			}
			body := strings.Repeat(smuggled, 900_000/35)
			if strings.HasPrefix(name, "4") && name[:2] != "40" && name[:3] != "413" && name != "417" {
				body = strings.Repeat("x", 900_000)
			}
			for rest := body; rest != ""; {
				n := min(len(rest), 10_000)
				if _, err := io.WriteString(conn, rest[:n]); err != nil {
					t.Fatalf("while sending: %v", err)
				}
				rest = rest[n:]
			}
			output, err := io.ReadAll(conn)
			if err != nil {
				t.Fatalf("no orderly end after %q: %v", output, err)
			}
			want, wantSeen := name[:3]+" close", []string(nil)
			if w.StreamRequest != nil && name == "413 chunks" {
				want, wantSeen = "200 close ok", []string{"POST / [" + body[:100] + "] 413"}
			}
			if answers := describeAnswers(string(output), nil); !slices.Equal(answers, []string{want}) {
				t.Errorf("answers %q, want %q", answers, want)
			}
			if seen := w.take(); !slices.Equal(seen, wantSeen) {
				t.Errorf("the handler saw %q", seen)
			}
		})
	}
}

// A client that cannot know that its connection ends with this answer may have
// sent the next request already: that must not cost it the answer.
func TestRequestCrossesTheEnd(t *testing.T) {
	for mode, change := range wireModes {
		t.Run(mode, func(t *testing.T) {
			limited := &wireServer{}
			limited.Server = &catamount.Server{Handler: http.HandlerFunc(limited.handle), MaxKeepAlive: 1}
			change(limited.Server)
			limited.addr = serve(t, limited.Server)
			testRequestCrossesTheEnd(t, newWireServer(t, mode), limited)
		})
	}
}

func testRequestCrossesTheEnd(t *testing.T, unlimited, limited *wireServer) {
	for _, test := range []struct {
		name, request string
		server        *wireServer
	}{
		{"the handler closes", request("GET /close HTTP/1.1", "Host: h"), unlimited},
		{"the server closes", get11, limited},
	} {
		t.Run(test.name, func(t *testing.T) {
			for range 5 {
				conn := dial(t, "tcp", test.server.addr).(*net.TCPConn)
				if _, err := io.WriteString(conn, test.request); err != nil {
					t.Fatal(err)
				}
				until(t, "the request is served", func() bool { return len(test.server.take()) > 0 })
				if _, err := io.WriteString(conn, smuggled); err != nil && !errors.Is(err, syscall.EPIPE) {
					t.Errorf("sending: %v", err)
				}
				output, err := io.ReadAll(conn)
				if err != nil {
					t.Fatalf("no orderly end after %q: %v", output, err)
				}
				if answers := describeAnswers(string(output), nil); !slices.Equal(answers, []string{"200 close ok"}) {
					t.Errorf("answers %q", answers)
				}
				conn.Close()
			}
		})
	}
}

// 100 Continue is sent to whoever waits for it, and to nobody else.
func TestExpectContinue(t *testing.T) {
	for mode := range wireModes {
		t.Run(mode, func(t *testing.T) { testExpectContinue(t, newWireServer(t, mode)) })
	}
}

func testExpectContinue(t *testing.T, w *wireServer) {
	for name, body := range map[string][2]string{
		"Content-Length: 5":          {"hello", "hello"},
		"Transfer-Encoding: chunked": {"5\r\nhello\r\n0\r\n\r\n", "hello"},
	} {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, "tcp", w.addr).(*net.TCPConn)
			for range 2 { // also for a later request of the connection
				if _, err := io.WriteString(conn, request("POST / HTTP/1.1", "Host: h", "Expect: 100-continue", name)); err != nil {
					t.Fatal(err)
				}
				const want = "HTTP/1.1 100 Continue\r\n\r\n"
				got := make([]byte, len(want))
				if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
					t.Fatalf("before the body: %q, %v", got, err)
				}
				if seen := w.take(); len(seen) > 0 {
					t.Errorf("the handler saw %q before the body", seen)
				}
				if _, err := io.WriteString(conn, body[0]); err != nil {
					t.Fatal(err)
				}
				r, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil || r.StatusCode != 200 {
					t.Fatalf("answer %v, %v", r, err)
				}
				if seen := w.take(); !slices.Equal(seen, []string{"POST / [" + body[1] + "]"}) {
					t.Errorf("the handler saw %q", seen)
				}
			}
		})
	}
}
