package catamount_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/catamount-server/catamount"
)

func TestValidateOverload(t *testing.T) {
	for _, test := range []struct {
		field, reason string
		server        *catamount.Server
	}{
		{"MaxQueueWait", "5ns is less than 1 ms", &catamount.Server{MaxQueueWait: 5}},
		{"HandlerTimeout", "30ns is less than 1 ms", &catamount.Server{HandlerTimeout: 30}},
		{"RetryAfter", "-1s is negative", &catamount.Server{RetryAfter: -time.Second}},
	} {
		err := test.server.Validate()
		if err == nil || !strings.Contains(err.Error(), "Server."+test.field+":") || !strings.Contains(err.Error(), test.reason) {
			t.Errorf("Validate = %v, want field %s and reason %q", err, test.field, test.reason)
		}
	}
	for _, good := range []*catamount.Server{
		{MaxBacklog: 1, MaxQueueWait: time.Millisecond, RetryAfter: time.Nanosecond, HandlerTimeout: time.Millisecond},
		{MaxBacklog: -1, MaxQueueWait: -1, HandlerTimeout: -1}, // off
		{MaxBacklog: 1, MaxQueueWait: time.Second, QueueRequests: new(false)},
		{RetryAfter: time.Minute},
	} {
		if err := good.Validate(); err != nil {
			t.Errorf("Validate(%+v) = %v", good, err)
		}
	}
}

// hangingHandler serves paths that begin with /hang when the test lets them go,
// and others at once.
func hangingHandler() (handler http.HandlerFunc, began chan string, release chan struct{}) {
	began, release = make(chan string, 10), make(chan struct{})
	return func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/hang") {
			began <- r.URL.Path
			<-release
		}
		_, _ = io.WriteString(w, r.URL.Path)
	}, began, release
}

// keptClient asks for one thing after the other on one connection.
type keptClient struct {
	net.Conn
	t      *testing.T
	reader *bufio.Reader
}

func dialKept(t *testing.T, addr string) *keptClient {
	conn := dial(t, "tcp", addr)
	return &keptClient{conn, t, bufio.NewReader(conn)}
}

func (c *keptClient) ask(path string) {
	c.t.Helper()
	if _, err := io.WriteString(c, request("GET "+path+" HTTP/1.1", "Host: h")); err != nil {
		c.t.Fatal(err)
	}
}

func (c *keptClient) want(status int, body string) *http.Response {
	c.t.Helper()
	a, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	if got, err := io.ReadAll(a.Body); a.StatusCode != status || string(got) != body || err != nil {
		c.t.Fatalf("answer %d %q (%v), want %d %q", a.StatusCode, got, err, status, body)
	}
	return a
}

// With one place, which hangs, and one that may wait: the third is refused at
// once, the second after its time, and both may come again.
func TestOverload(t *testing.T) {
	handler, began, release := hangingHandler()
	s := &catamount.Server{
		Handler: handler, MaxThreads: 1,
		MaxBacklog: 1, MaxQueueWait: time.Second, RetryAfter: 6500 * time.Millisecond,
	}
	addr := serve(t, s)
	first, second, third := dialKept(t, addr), dialKept(t, addr), dialKept(t, addr)
	first.ask("/hang")
	waitFor(t, began)
	second.ask("/second")
	until(t, "the second waits", func() bool { return s.Stats().Backlog == 1 })
	third.ask("/third")
	for _, c := range []*keptClient{third, second} {
		if a := c.want(503, "503 Service Unavailable\n"); a.Header.Get("Retry-After") != "7" || a.Close {
			t.Errorf("header %v", a.Header)
		}
	}
	if stats := s.Stats(); stats.Overload["backlog"] != 1 || stats.Overload["age"] != 1 {
		t.Errorf("Overload %v", stats.Overload)
	}
	close(release)
	first.want(200, "/hang")
	until(t, "the place is free", func() bool { return s.Stats().BusyThreads == 0 })
	for _, c := range []*keptClient{second, third} {
		c.ask("/again")
		c.want(200, "/again")
	}
}

// The handler hangs; its client is told, others are served, and the server can
// be ended.
func TestHandlerTimeout(t *testing.T) {
	handler, began, release := hangingHandler()
	defer close(release)
	log := make(stackLog, 10)
	s := &catamount.Server{Handler: handler, MaxThreads: 2, HandlerTimeout: time.Second, Logger: slog.New(log)}
	addr := serve(t, s)
	output := talk(t, dial(t, "tcp", addr), request("GET /hang HTTP/1.1", "Host: h")+request("GET /behind HTTP/1.1", "Host: h"))
	waitFor(t, began)
	if got := describeAnswers(output, nil); len(got) != 1 || !strings.HasPrefix(got[0], "503 close") {
		t.Errorf("answers %q", got)
	}
	if line := waitFor(t, log); !strings.HasPrefix(line, "handler timed out (503) goroutine ") || !strings.Contains(line, "hangingHandler.func1(") {
		t.Errorf("logged %q", line)
	}
	if got := talk(t, dial(t, "tcp", addr), request("GET /other HTTP/1.1", "Host: h", "Connection: close")); !strings.HasSuffix(got, "/other") {
		t.Errorf("answer %q", got)
	}
	if stats := s.Stats(); stats.HandlerTimeouts != 1 || stats.BusyThreads != 1 {
		t.Errorf("HandlerTimeouts %d, BusyThreads %d", stats.HandlerTimeouts, stats.BusyThreads)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

// stackLog is a slog.Handler that delivers messages with the stack in them.
type stackLog chan string

func (stackLog) Enabled(context.Context, slog.Level) bool { return true }
func (l stackLog) WithAttrs([]slog.Attr) slog.Handler     { return l }
func (l stackLog) WithGroup(string) slog.Handler          { return l }

func (l stackLog) Handle(_ context.Context, record slog.Record) error {
	line := record.Message
	record.Attrs(func(a slog.Attr) bool {
		if a.Key == "stack" {
			line += " " + a.Value.String()
		}
		return true
	})
	l <- line
	return nil
}
