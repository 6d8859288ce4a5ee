package worker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long a test waits for what must come. Only a failing test
// takes that long.
const patience = 20 * time.Second

// testOptions are the defaults of the root package.
func testOptions() Options {
	return Options{
		MaxThreads: 256, QueueRequests: true, KeepAlive: true, MaxFastInline: 32,
		BodyMemory: 112 << 10, OutputMemory: 256 << 10, OutputMemoryTotal: 64 << 20,
		Timeouts: Timeouts{
			FirstByte: 30 * time.Second, Head: 20 * time.Second,
			BodyIdle: 30 * time.Second, BodyMinRate: 500, BodyGrace: 20 * time.Second,
			Idle: 75 * time.Second, AdvertisedIdle: 65 * time.Second,
			WriteMinRate: 500, WriteGrace: 20 * time.Second, Linger: 2 * time.Second,
		},
	}
}

// testServer is a server on a real listener, ended with its test.
type testServer struct {
	*Server
	t      testing.TB
	addr   string
	logs   *logRecorder
	served chan error // what Serve returned
	ended  sync.Once
}

func startServer(t testing.TB, handler http.HandlerFunc, changes ...func(*Options)) *testServer {
	t.Helper()
	ts := newTestServer(t, handler, changes...)
	l := listenTCP(t)
	ts.addr = l.Addr().String()
	go func() { ts.served <- ts.Serve(l) }()
	ts.waitArmed(1)
	return ts
}

// waitArmed waits until so many listeners are watched: what is accepted before
// that has not what it inherits from them.
func (ts *testServer) waitArmed(count int) {
	ts.t.Helper()
	ts.until("the listeners are watched", func() bool {
		armed := make(chan int, 1)
		err := ts.reactor.Do(func() {
			n := 0
			if table := ts.gate.table.Load(); table != nil {
				for _, l := range *table {
					if l.armed {
						n++
					}
				}
			}
			armed <- n
		})
		return err == nil && waitFor(ts.t, armed) == count
	})
}

// newTestServer makes a server that nobody serves a listener with yet.
func newTestServer(t testing.TB, handler http.HandlerFunc, changes ...func(*Options)) *testServer {
	t.Helper()
	logs := newLogRecorder()
	options := testOptions()
	options.Handler = handler
	options.Logger = slog.New(logs)
	for _, change := range changes {
		change(&options)
	}
	s, err := NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	ts := &testServer{Server: s, t: t, logs: logs, served: make(chan error, 8)}
	t.Cleanup(ts.stop)
	return ts
}

// stop ends the server and waits until nothing of it is left: all its log
// lines are written then.
func (ts *testServer) stop() {
	ts.ended.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := ts.Close(); err != nil {
			ts.t.Errorf("Close: %v", err)
		}
		if err := ts.Shutdown(ctx); err != nil {
			ts.t.Errorf("the server does not end: %v\n%s", err, stacks())
		}
		ts.until("no body holds a block", func() bool { return ts.blocks.used.Load() == 0 })
	})
}

// waitState waits until so many connections are in a state.
func (ts *testServer) waitState(state State, count int) {
	ts.t.Helper()
	ts.until(fmt.Sprintf("%d connections in state %v", count, state), func() bool {
		return ts.Stats().Connections[state.String()] == count
	})
}

// until waits for a condition that nobody reports.
func (ts *testServer) until(what string, holds func() bool) {
	ts.t.Helper()
	for deadline := time.Now().Add(patience); !holds(); runtime.Gosched() {
		if time.Now().After(deadline) {
			ts.t.Fatalf("never: %s; stats %+v", what, ts.Stats())
		}
	}
}

// holdReactor keeps the reactor from doing anything until release is called:
// what happens meanwhile is one batch to it.
func (ts *testServer) holdReactor() (release func()) {
	ts.t.Helper()
	held, gate := make(chan struct{}), make(chan struct{})
	if err := ts.reactor.Do(func() { close(held); <-gate }); err != nil {
		ts.t.Fatal(err)
	}
	waitFor(ts.t, held)
	return sync.OnceFunc(func() { close(gate) })
}

func listenTCP(t testing.TB) net.Listener {
	t.Helper()
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	l, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
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

func stacks() string {
	buffer := make([]byte, 1<<16)
	return string(buffer[:runtime.Stack(buffer, true)])
}

// client is one end of a connection, spoken to in bytes.
type client struct {
	*net.TCPConn
	t      testing.TB
	reader *bufio.Reader
}

func (ts *testServer) dial() *client {
	ts.t.Helper()
	return dialTCP(ts.t, ts.addr)
}

func dialTCP(t testing.TB, addr string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { conn.Close() })
	return &client{conn.(*net.TCPConn), t, bufio.NewReader(conn)}
}

func (c *client) send(parts ...string) {
	c.t.Helper()
	if _, err := io.WriteString(c, strings.Join(parts, "")); err != nil {
		c.t.Fatalf("sending: %v", err)
	}
}

// answer is a whole response.
type answer struct {
	*http.Response
	body string
	err  error // of reading the body
}

// answer reads the next response, which is one to the given method.
func (c *client) answerTo(method string) answer {
	c.t.Helper()
	r, err := http.ReadResponse(c.reader, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("reading an answer: %v", err)
	}
	body, err := io.ReadAll(r.Body)
	return answer{r, string(body), err}
}

func (c *client) answer() answer {
	c.t.Helper()
	return c.answerTo(http.MethodGet)
}

// want reads an answer and checks status and body.
func (c *client) want(status int, body string) answer {
	c.t.Helper()
	a := c.answer()
	if a.StatusCode != status || a.body != body || a.err != nil {
		c.t.Fatalf("answer %d %q (%v), want %d %q", a.StatusCode, clip(a.body), a.err, status, clip(body))
	}
	return a
}

// rest reads to the end of the connection, which must be an orderly one.
func (c *client) rest() string {
	c.t.Helper()
	b, err := io.ReadAll(c.reader)
	if err != nil {
		c.t.Fatalf("no orderly end after %d bytes: %v", len(b), err)
	}
	return string(b)
}

// wantEnd: nothing more comes.
func (c *client) wantEnd() {
	c.t.Helper()
	if rest := c.rest(); rest != "" {
		c.t.Fatalf("unexpected bytes before the end: %q", clip(rest))
	}
}

// reset closes the connection with RST.
func (c *client) reset() {
	_ = c.SetLinger(0)
	c.Close()
}

func clip(s string) string {
	if len(s) > 300 {
		return s[:300] + "..."
	}
	return s
}

const get = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"

// getPath is a request for a path, with more header lines if there are any.
func getPath(path string, lines ...string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: h\r\n" + headerLines(lines) + "\r\n"
}

func post(body string, lines ...string) string {
	return fmt.Sprintf("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n%s\r\n%s", len(body), headerLines(lines), body)
}

func headerLines(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(lines, "\r\n") + "\r\n"
}

// hello is an ordinary handler.
func hello(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "Hello, World!") }

// logRecorder is a slog.Handler that delivers what is logged.
type logRecorder struct{ records chan logRecord }

type logRecord struct {
	level   slog.Level
	message string
	attrs   map[string]any
}

func newLogRecorder() *logRecorder { return &logRecorder{make(chan logRecord, 1<<14)} }

func (l *logRecorder) Enabled(context.Context, slog.Level) bool { return true }
func (l *logRecorder) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *logRecorder) WithGroup(string) slog.Handler            { return l }

func (l *logRecorder) Handle(_ context.Context, r slog.Record) error {
	record := logRecord{r.Level, r.Message, make(map[string]any)}
	r.Attrs(func(a slog.Attr) bool {
		record.attrs[a.Key] = a.Value.Any()
		return true
	})
	select {
	case l.records <- record:
		return nil
	default:
		return errors.New("nobody takes the log lines")
	}
}

// next waits for a line with the message, and drops those before it.
func (l *logRecorder) next(t testing.TB, message string) logRecord {
	t.Helper()
	timeout := time.After(patience)
	var others []string
	for {
		select {
		case r := <-l.records:
			if r.message == message {
				return r
			}
			others = append(others, fmt.Sprintf("%s %v", r.message, r.attrs))
		case <-timeout:
			t.Fatalf("no log line %q; others: %q", message, others)
		}
	}
}

// all returns the lines that are here already; after stop these are all.
func (l *logRecorder) all() (records []logRecord) {
	for {
		select {
		case r := <-l.records:
			records = append(records, r)
		default:
			return records
		}
	}
}

// count ends the server and returns how many lines had the message.
func (ts *testServer) countLogged(message string) (count int, lines []logRecord) {
	ts.stop()
	lines = ts.logs.all()
	for _, r := range lines {
		if r.message == message {
			count++
		}
	}
	return count, lines
}

// hijack takes a handler's connection over; nil: it could not, which is an error.
func hijack(t *testing.T, w http.ResponseWriter) net.Conn {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		t.Error(err)
		return nil
	}
	return conn
}
