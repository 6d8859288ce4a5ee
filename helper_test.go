package catamount_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/catamount-server/catamount"
)

// patience is how long a test waits for what must come. Only a failing test
// takes that long.
const patience = 20 * time.Second

// serve serves s on a listener of its own until the end of the test.
func serve(t testing.TB, s *catamount.Server) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, s, l)
	return l.Addr().String()
}

func serveOn(t testing.TB, s *catamount.Server, l net.Listener) {
	t.Helper()
	if s.Logger == nil {
		s.Logger = slog.New(slog.DiscardHandler)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		end(t, s)
		if err := waitFor(t, served); err != http.ErrServerClosed {
			t.Errorf("Serve: %v", err)
		}
	})
}

// end closes a server and waits until nothing of it is left.
func end(t testing.TB, s *catamount.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := s.Shutdown(ctx); err != nil {
		t.Errorf("the server does not end: %v\n%s", err, stacks())
	}
}

// waitFor fails the test when nothing comes.
func waitFor[V any](t testing.TB, c <-chan V) V {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("nothing received\n%s", stacks())
		panic("unreachable")
	}
}

// until waits for a condition that nobody reports.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func stacks() string {
	buffer := make([]byte, 1<<20)
	return string(buffer[:runtime.Stack(buffer, true)])
}

func dial(t testing.TB, network, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { conn.Close() })
	return conn
}

// talk sends all of the input and reads to the end of the connection.
func talk(t testing.TB, conn net.Conn, input string) string {
	t.Helper()
	if input != "" {
		if _, err := io.WriteString(conn, input); err != nil {
			t.Fatal(err)
		}
	}
	output, err := io.ReadAll(conn)
	if err != nil {
		t.Fatalf("no orderly end after %q: %v", output, err)
	}
	return string(output)
}

// describeAnswers reads what a server has sent as strictly as a suspicious
// client would, and describes each answer in a few words:
//
//	[1.0] status [none|chunked|until-close] alive|close [body]
//
// A body without "chunked" or "until-close" has its length in Content-Length;
// "none" has no framing at all. That of an answer to HEAD is "length=n",
// "chunked" or "none". The last word of the description is an error in angle
// brackets if the rest is no answer.
func describeAnswers(output string, methods []string) (answers []string) {
	r := bufio.NewReader(strings.NewReader(output))
	for {
		if _, err := r.Peek(1); err == io.EOF {
			return answers
		}
		method := http.MethodGet
		if len(methods) > 0 {
			method = methods[0]
		}
		answer, final, err := describeAnswer(r, method)
		if err != nil {
			return append(answers, "<"+err.Error()+">")
		}
		if final && len(methods) > 0 {
			methods = methods[1:]
		}
		answers = append(answers, answer)
	}
}

func describeAnswer(r *bufio.Reader, method string) (answer string, final bool, err error) {
	line, err := readLine(r)
	if err != nil {
		return "", false, err
	}
	version, rest, _ := strings.Cut(line, " ")
	code, text, spaced := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if err != nil || len(code) != 3 || !spaced || text == "" || version != "HTTP/1.1" && version != "HTTP/1.0" {
		return "", false, fmt.Errorf("status line %q", line)
	}
	fields, err := readFields(r)
	if err != nil {
		return "", false, err
	}
	words := []string{code}
	if version == "HTTP/1.0" {
		words = []string{"1.0", code}
	}
	if status < 200 {
		return code, false, nil
	}
	if _, err := http.ParseTime(fields["date"]); err != nil {
		return "", false, fmt.Errorf("date %q", fields["date"])
	}
	framing, body, err := readBody(r, status, method, fields)
	if err != nil {
		return "", false, err
	}
	if framing != "" {
		words = append(words, framing)
	}
	words = append(words, connectionWord(version, fields))
	// What the server says of a bad request is its own affair.
	if status < 400 && body != "" {
		words = append(words, body)
	}
	return strings.Join(words, " "), true, nil
}

func connectionWord(version string, fields map[string]string) string {
	alive := version == "HTTP/1.1"
	for option := range strings.SplitSeq(fields["connection"], ",") {
		switch strings.ToLower(strings.TrimSpace(option)) {
		case "close":
			return "close"
		case "keep-alive":
			alive = true
		}
	}
	if alive {
		return "alive"
	}
	return "close"
}

func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil || !strings.HasSuffix(line, "\r\n") || strings.Contains(line[:len(line)-2], "\r") {
		return "", fmt.Errorf("line %q", line)
	}
	return line[:len(line)-2], nil
}

// readFields reads the fields up to the empty line; none may come twice.
func readFields(r *bufio.Reader) (map[string]string, error) {
	fields := make(map[string]string)
	for {
		line, err := readLine(r)
		if err != nil || line == "" {
			return fields, err
		}
		name, value, found := strings.Cut(line, ": ")
		name = strings.ToLower(name)
		if _, twice := fields[name]; !found || twice || strings.ContainsAny(name, " \t") {
			return nil, fmt.Errorf("field %q", line)
		}
		fields[name] = value
	}
}

func readBody(r *bufio.Reader, status int, method string, fields map[string]string) (framing, body string, err error) {
	length, hasLength := fields["content-length"]
	coding, hasCoding := fields["transfer-encoding"]
	if hasLength && hasCoding || hasCoding && coding != "chunked" {
		return "", "", fmt.Errorf("Content-Length %q with Transfer-Encoding %q", length, coding)
	}
	switch {
	case method == http.MethodHead && hasLength:
		return "length=" + length, "", nil
	case method == http.MethodHead && hasCoding:
		return "chunked", "", nil
	case method == http.MethodHead, status == 204, status == 304:
		if hasLength || hasCoding {
			return "", "", fmt.Errorf("framing of a %d without a body: %q %q", status, length, coding)
		}
		return "none", "", nil
	case hasLength:
		n, err := strconv.Atoi(length)
		if err != nil {
			return "", "", err
		}
		b := make([]byte, n)
		if _, err = io.ReadFull(r, b); err != nil {
			err = fmt.Errorf("body of %d bytes: %w", n, err)
		}
		return "", string(b), err
	case hasCoding:
		body, err := readChunks(r)
		return "chunked", body, err
	}
	b, err := io.ReadAll(r)
	return "until-close", string(b), err
}

func readChunks(r *bufio.Reader) (string, error) {
	var body bytes.Buffer
	for {
		line, err := readLine(r)
		if err != nil {
			return "", err
		}
		n, err := strconv.ParseInt(line, 16, 64)
		if err != nil {
			return "", fmt.Errorf("chunk size %q", line)
		}
		if n == 0 {
			_, err := readFields(r)
			return body.String(), err
		}
		if _, err := io.CopyN(&body, r, n); err != nil {
			return "", err
		}
		if end, err := readLine(r); err != nil || end != "" {
			return "", fmt.Errorf("end of a chunk %q", end)
		}
	}
}

// watchedContext never ends, and counts who waits for it.
type watchedContext struct {
	context.Context
	done     chan struct{}
	watchers atomic.Int64
}

func newWatchedContext() *watchedContext {
	return &watchedContext{Context: context.Background(), done: make(chan struct{})}
}

func (c *watchedContext) Done() <-chan struct{} { return c.done }

func (c *watchedContext) AfterFunc(func()) (stop func() bool) {
	c.watchers.Add(1)
	return func() bool {
		c.watchers.Add(-1)
		return true
	}
}
