package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"
)

// wantStats compares some fields, by their JSON names, when they have had time
// to settle.
func (ts *testServer) wantStats(want map[string]any) {
	ts.t.Helper()
	var got map[string]any
	ts.until(fmt.Sprintf("%v, but %v", want, got), func() bool {
		got = statsOf(ts.t, ts.Stats())
		for name, value := range want {
			if fmt.Sprint(got[name]) != fmt.Sprint(value) {
				return false
			}
		}
		return true
	})
}

func statsOf(t testing.TB, stats Stats) map[string]any {
	t.Helper()
	text, err := json.Marshal(stats)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	return fields
}

// The names that Puma has, and the numbers they stand for.
func TestPumaStats(t *testing.T) {
	entered, gate := make(chan struct{}, 10), make(chan struct{})
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		waitFor(t, gate)
	}, func(o *Options) { o.MinThreads, o.MaxThreads = 1, 3 })
	ts.wantStats(map[string]any{"backlog": 0, "running": 1, "pool_capacity": 3, "busy_threads": 0, "max_threads": 3, "requests_count": 0, "reactor_max": 0, "backlog_max": 0})
	var clients []*client
	for range 5 {
		c := ts.dial()
		c.send(get)
		clients = append(clients, c)
	}
	for range 3 {
		waitFor(t, entered)
	}
	ts.wantStats(map[string]any{"backlog": 2, "running": 3, "pool_capacity": 0, "busy_threads": 5, "requests_count": 3, "reactor_max": 5})
	close(gate)
	for _, c := range clients {
		c.want(200, "")
	}
	ts.wantStats(map[string]any{"backlog": 0, "running": 3, "pool_capacity": 3, "busy_threads": 0, "requests_count": 5, "reactor_max": 5})
	if n := ts.Stats().BacklogMax; n < 2 {
		t.Errorf("backlog_max %d, want at least 2", n)
	}
}

func TestConnectionsByState(t *testing.T) {
	entered, gate := make(chan struct{}), make(chan struct{})
	const big = 8 << 20
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/wait":
			close(entered)
			waitFor(t, gate)
		case "/big":
			_, _ = io.WriteString(w, strings.Repeat("x", big))
		}
	}, func(o *Options) { o.OutputMemory = 2 * big })
	defer close(gate)
	for _, bytes := range []string{"", get, "GET / HT", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n", getPath("/wait"), getPath("/big"), "nonsense\r\n\r\n"} {
		c := ts.dial()
		c.send(bytes)
	}
	waitFor(t, entered)
	ts.wantStats(map[string]any{"accepted": 7, "connections": map[string]any{"new": 1, "idle": 1, "head": 1, "body": 1, "queued": 1, "writing": 1, "lingering": 1}})
}

func TestCounters(t *testing.T) {
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/panic":
			panic("x")
		case "/abort":
			panic(http.ErrAbortHandler)
		case "/hijack":
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				conn.Close()
			}
		case "/short":
			w.Header().Set("Content-Length", "5")
		case "/301":
			w.WriteHeader(301)
		case "/404":
			w.WriteHeader(404)
		case "/500":
			w.WriteHeader(500)
		case "/1xx":
			w.WriteHeader(103)
			w.WriteHeader(204)
		}
	}, func(o *Options) { o.Limits.Body = 10 })
	talk := func(request string) string {
		c := ts.dial()
		defer c.Close()
		c.send(request)
		_ = c.CloseWrite()
		return c.rest()
	}
	sent, received := 0, 0
	for _, path := range []string{"/panic", "/abort", "/hijack", "/short", "/301", "/404", "/500", "/1xx", "/", "/"} {
		sent += len(getPath(path))
		received += len(talk(getPath(path)))
	}
	ts.wantStats(map[string]any{
		"accepted": 10, "requests_count": 10, "panics": 1, "hijacked": 1, "bytes_in": sent, "bytes_out": received,
		"statuses": map[string]any{"2xx": 3, "3xx": 1, "4xx": 1, "5xx": 1, "cut": 3},
	})
	for _, bad := range []string{
		"GET / HTTP/1.1\n", "GET / HTTP/1.1\n", "GET / HTTP/3.0\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\nExpect: x\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world",
		"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx",
	} {
		sent += len(bad)
		received += len(talk(bad))
	}
	ts.wantStats(map[string]any{
		"accepted": 18, "requests_count": 10, "bytes_in": sent, "bytes_out": received,
		"parse_errors": map[string]any{"bare_lf": 2, "unsupported_version": 1, "missing_host": 1, "expectation": 1, "body_too_large": 2, "bad_chunk_size": 1},
	})
	for _, half := range []string{"GET / HT", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n"} {
		talk(half)
	}
	ts.wantStats(map[string]any{"vanished": 2, "body_storage_errors": 0, "idle_closed": 0, "timeouts": map[string]any{"head": 0, "body": 0}})
}

// The histogram has every request, in the right bar.
func TestQueueWaits(t *testing.T) {
	gated := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			<-time.After(3 * time.Second)
		}
	}
	inBubble(t, gated, func(o *Options) { o.MaxThreads = 1 }, func(t *testing.T, k *fakeKernel) {
		a, b := k.connect(), k.connect()
		a.send(getPath("/wait"))
		b.send(get)
		k.pass(5 * time.Second)
		var sum uint64
		var below time.Duration
		for i, bucket := range k.Stats().QueueWait {
			if bucket.Below != 0 && bucket.Below <= below || bucket.Below == 0 && i != waitBuckets-1 {
				t.Errorf("bucket %d: below %v after %v", i, bucket.Below, below)
			}
			switch {
			case bucket.Count == 0:
			case below == 0, below <= 3*time.Second && 3*time.Second < bucket.Below: // none, and three seconds
			default:
				t.Errorf("%d waits from %v to %v", bucket.Count, below, bucket.Below)
			}
			sum += bucket.Count
			below = bucket.Below
		}
		if sum != 2 {
			t.Errorf("%d requests in the histogram, want 2", sum)
		}
	})
}

// A log that stalls holds up nobody; what it missed is counted, and told when
// it goes on.
func TestStalledLog(t *testing.T) {
	stalled := &stallingLog{logRecorder: newLogRecorder(), entered: make(chan struct{}, 1), gate: make(chan struct{})}
	ts := startServer(t, hello, func(o *Options) { o.Logger = slog.New(stalled) })
	l := ts.Server.log
	l.warn(limitKey{event: "first"}, "the first")
	waitFor(t, stalled.entered)
	for i := range logQueue + 10 {
		l.warn(limitKey{event: fmt.Sprint(i)}, "another")
	}
	if n := ts.Stats().DroppedLogs; n != 10 {
		t.Errorf("DroppedLogs = %d, want 10", n)
	}
	c := ts.dial()
	c.send(get)
	c.want(200, "Hello, World!")
	close(stalled.gate)
	line := stalled.next(t, "log lines dropped: the log does not keep up")
	if fmt.Sprint(line.attrs["lines"]) != "10" {
		t.Errorf("line %v", line.attrs)
	}
}

type stallingLog struct {
	*logRecorder
	entered chan struct{}
	gate    chan struct{}
}

func (l *stallingLog) Handle(ctx context.Context, r slog.Record) error {
	select {
	case l.entered <- struct{}{}:
	default:
	}
	<-l.gate
	return l.logRecorder.Handle(ctx, r)
}

// Floods are thinned, and what was left out is told.
func TestFloodOfOneEvent(t *testing.T) {
	inBubble(t, hello, nil, func(t *testing.T, k *fakeKernel) {
		for range 50 {
			k.log.warn(limitKey{event: "x"}, "the event")
			k.log.warn(limitKey{event: "x", peer: [16]byte{1}}, "of another peer")
		}
		k.pass(500 * time.Millisecond)
		if lines := k.logs.all(); len(lines) != 2 {
			t.Errorf("%d lines at once, want one for each peer", len(lines))
		}
		k.pass(time.Second)
		lines := k.logs.all()
		if len(lines) != 2 || fmt.Sprint(lines[0].attrs["left_out"]) != "48" {
			t.Errorf("after a second: %v", lines)
		}
		k.pass(time.Minute)
		if lines := k.logs.all(); len(lines) > 0 {
			t.Errorf("after a minute: %v", lines)
		}
	})
}

// What a wrongly configured neighbour sends instead of a request is named.
func TestOtherProtocolsAreNamed(t *testing.T) {
	for message, inputs := range map[string][]string{
		"TLS handshake on a plain-text port": {"\x16\x03\x01\x02\x00\x01\x00"},
		"PROXY protocol, which is not spoken here": {
			"PROXY TCP4 192.0.2.1 192.0.2.2 56324 80\r\n" + get,
			"PROXY TCP6 2001:db8::1 2001:db8::2 56324 80\r\n" + get,
			"PROXY UNKNOWN\r\n" + get,
			"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\xdc\x04\x00\x50" + get,
		},
		"request refused": {"PROXY / HTTP/1.1\r\n\r\n", "\r\n\x00\r\n\r\n", "PROXYTCP4\r\n"},
	} {
		for _, input := range inputs {
			ts := startServer(t, func(http.ResponseWriter, *http.Request) {})
			c := ts.dial()
			c.send(input)
			if a := c.answer(); a.StatusCode != 400 {
				t.Errorf("%q: answer %d", input, a.StatusCode)
			}
			c.Close()
			ts.stop()
			ts.logs.next(t, message)
		}
	}
}
