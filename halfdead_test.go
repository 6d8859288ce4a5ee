package catamount_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/catamount-server/catamount"
)

// A switch failed and servers dropped off the network, without a FIN or a reset
// to anybody: the other side's connections stayed, and were used, for hours.
// Here a server finds out in bounded time, in whatever state a connection is.

// childIdle is the idle limit of those servers that have one for tests.
const childIdle = time.Second

// childServers are the settings that a child may have.
var childServers = map[string]func() *catamount.Server{
	// TCP's own means have to find the peer: every deadline is far off.
	"probes": func() *catamount.Server {
		return &catamount.Server{
			TCPKeepAlive:   net.KeepAliveConfig{Idle: time.Second, Interval: time.Second, Count: 2},
			TCPUserTimeout: 2 * time.Second, OutputMemory: 16 << 20, OutputFile: -1, LingerTimeout: time.Minute,
		}
	},
	"probes, blocking": func() *catamount.Server {
		return &catamount.Server{
			TCPKeepAlive:   net.KeepAliveConfig{Idle: time.Second, Interval: time.Second, Count: 2},
			TCPUserTimeout: 2 * time.Second, OutputMemory: 16 << 20, OutputFile: -1, LingerTimeout: time.Minute,
			QueueRequests: new(false), EnableKeepAlives: new(true),
		}
	},
	// The server's own deadlines have to do it.
	"deadlines": func() *catamount.Server {
		return &catamount.Server{
			TCPKeepAlive: net.KeepAliveConfig{Idle: -1}, TCPUserTimeout: -1, OutputMemory: 16 << 20, OutputFile: -1,
			FirstByteTimeout: 2 * time.Second, ReadHeaderTimeout: 2 * time.Second, BodyIdleTimeout: 2 * time.Second,
			IdleTimeout: 2 * time.Second, WriteMinRate: 1 << 20, WriteGrace: 2 * time.Second, LingerTimeout: 2 * time.Second,
		}
	},
	"idle limit": func() *catamount.Server { return &catamount.Server{IdleTimeout: childIdle} },
	"idle limit, blocking": func() *catamount.Server {
		return &catamount.Server{IdleTimeout: childIdle, QueueRequests: new(false), EnableKeepAlives: new(true)}
	},
}

// halfDead is a server and its connections, one in each state.
type halfDead struct {
	*network
	*child
	t       *testing.T
	clients map[string]net.Conn
	readers sync.WaitGroup
}

// vanishing is what is to come when the cable of such a server is cut.
type vanishing struct {
	server  string
	states  map[string]int // of the connections, before
	within  time.Duration  // all are gone by then, but for the one in its handler
	notices bool           // the context of that one ends
	events  []string       // what the handlers see
	log     []string       // the client, what is said of it, phase or cause, error
	failed  map[string]uint64
}

var vanishings = []vanishing{
	{
		server: "probes", within: 3 * time.Second, notices: true,
		states: map[string]int{"new": 1, "idle": 1, "head": 1, "body": 1, "writing": 1, "queued": 2, "lingering": 1},
		events: []string{"blocked: context canceled", "released: connection timed out", "stream: connection timed out, context canceled"},
		log: []string{
			"blocked: response not delivered, timed_out, connection timed out",
			"body: connection failed in the middle of a request, body, connection timed out",
			"head: connection failed in the middle of a request, head, connection timed out",
			"rest: response not delivered, timed_out, connection timed out",
			"stream: response not delivered, timed_out, connection timed out",
		},
		failed: map[string]uint64{"timed_out": 3},
	},
	{
		server: "probes, blocking", within: 3 * time.Second, notices: true,
		states: map[string]int{"queued": 6, "writing": 1, "lingering": 1},
		events: []string{"blocked: context canceled", "released: connection timed out", "stream: connection timed out, context canceled"},
		log: []string{
			"blocked: response not delivered, timed_out, connection timed out",
			"body: connection failed in the middle of a request, body, connection timed out",
			"head: connection failed in the middle of a request, head, connection timed out",
			"rest: response not delivered, timed_out, connection timed out",
			"stream: response not delivered, timed_out, connection timed out",
		},
		failed: map[string]uint64{"timed_out": 3},
	},
	{
		// The deadlines' two seconds, and two of lingering. Nothing tells of a peer
		// from whom nothing is awaited: the kernel takes the answer.
		server: "deadlines", within: 4 * time.Second, notices: false,
		states: map[string]int{"new": 1, "idle": 1, "head": 1, "body": 1, "writing": 1, "queued": 2, "lingering": 1},
		events: []string{"released: <nil>", "stream: catamount: the client reads too slowly: i/o timeout, context canceled"},
		log: []string{
			"body: request timed out (408), body, ",
			"head: request timed out (408), head, ",
			"rest: response not delivered, too_slow, catamount: the client reads too slowly: i/o timeout",
			"stream: response not delivered, too_slow, catamount: the client reads too slowly: i/o timeout",
		},
		failed: map[string]uint64{"too_slow": 2},
	},
}

// slack is for a machine that is busy. The deadlines of a server with default
// settings are far beyond it.
const slack = 5 * time.Second

func TestPeersBehindACutCable(t *testing.T) {
	t.Parallel()
	for _, v := range vanishings {
		t.Run(v.server, func(t *testing.T) {
			t.Parallel()
			n := newNetwork(t)
			h := &halfDead{network: n, child: n.startChild(v.server), t: t}
			t.Cleanup(h.readers.Wait)
			before := h.tell("")
			h.connect(before)
			opened := h.await("every connection is in its state", func(r childReport) bool { return maps.Equal(r.Stats.Connections, v.states) })
			if n := opened.Descriptors - before.Descriptors; n != len(h.clients) {
				t.Errorf("%d descriptors for %d connections", n, len(h.clients))
			}
			n.cut()
			h.check(&v, before)
			n.mend()
			h.comeBack(before)
		})
	}
}

// connect brings a connection into each state.
func (h *halfDead) connect(server childReport) {
	h.t.Helper()
	const small = 4096 // bytes that a client's socket takes of an answer
	h.clients = map[string]net.Conn{
		"new":       h.dial(server, 0, ""),
		"idle":      h.dial(server, 0, get11),
		"head":      h.dial(server, 0, "GET /head HTTP/1.1\r\nHos"),
		"body":      h.dial(server, 0, withLength("10")+"12345"),
		"blocked":   h.dial(server, 0, request("GET /blocked HTTP/1.1", "Host: h")),
		"rest":      h.dial(server, small, request("GET /rest HTTP/1.1", "Host: h")),
		"stream":    h.dial(server, small, request("GET /stream HTTP/1.1", "Host: h")),
		"lingering": h.dial(server, 0, "nonsense\r\n\r\n"),
	}
	answer, err := http.ReadResponse(bufio.NewReader(h.clients["idle"]), nil)
	if err != nil {
		h.t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, answer.Body)
	// They take their answers slowly, not never: it is the cable that ends them.
	for _, client := range []string{"rest", "stream"} {
		h.readers.Go(func() { readSlowly(h.clients[client]) })
	}
}

// readSlowly reads a quarter of a megabyte a second until the connection is
// closed or its deadline passes.
func readSlowly(conn net.Conn) {
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	piece := make([]byte, 512)
	for range ticker.C {
		if _, err := conn.Read(piece); err != nil {
			return
		}
	}
}

// check waits until the server has let go of everybody, and says what it has
// seen of that.
func (h *halfDead) check(v *vanishing, before childReport) {
	h.t.Helper()
	begun := time.Now()
	last := v.states
	h.await("only the connection in its handler is left", func(r childReport) bool {
		if now := r.Stats.Connections; !maps.Equal(now, last) {
			h.t.Logf("%v after the cut: %v", time.Since(begun).Round(time.Millisecond), now)
			last = now
		}
		return maps.Equal(last, map[string]int{"queued": 1})
	})
	if passed := time.Since(begun); passed > v.within+slack {
		h.t.Errorf("all of them are gone after %v, want %v", passed, v.within)
	}
	if r := h.tell(""); slices.Contains(r.Events, "blocked: context canceled") != v.notices {
		h.t.Errorf("before the handler is released: %q", r.Events)
	}
	h.tell("release")
	h.await("no connection is left", func(r childReport) bool {
		return connections(r.Stats) == 0 && len(r.Events) >= len(v.events) && len(h.log()) >= len(v.log)
	})
	after := h.tell("") // its counters are no older than its connections
	events, log := slices.Sorted(slices.Values(after.Events)), h.log()
	if !slices.Equal(events, v.events) {
		h.t.Errorf("events %q, want %q", events, v.events)
	}
	if !slices.Equal(log, v.log) {
		h.t.Errorf("log %q, want %q", log, v.log)
	}
	if !maps.Equal(after.Stats.WriteErrors, v.failed) {
		h.t.Errorf("failed writes %v, want %v", after.Stats.WriteErrors, v.failed)
	}
	if after.Descriptors != before.Descriptors {
		h.t.Errorf("%d descriptors, want %d as before", after.Descriptors, before.Descriptors)
	}
	if (after.Stats.Gone > 0) != v.notices {
		h.t.Errorf("%d clients are counted as gone", after.Stats.Gone)
	}
	h.t.Logf("gone %d, vanished %d, idle %d, 408s %v, failed writes %v", after.Stats.Gone, after.Stats.Vanished,
		after.Stats.IdleClosed, after.Stats.Timeouts, after.Stats.WriteErrors)
}

// log returns what the server has logged of its clients but for the refusal
// that makes one of them linger.
func (h *halfDead) log() (lines []string) {
	names := make(map[string]string)
	for name, conn := range h.clients {
		names[conn.LocalAddr().String()] = name
	}
	for _, line := range h.logs.all() {
		if line.message != "request refused" {
			lines = append(lines, fmt.Sprintf("%s: %s, %s, %s", names[line.attrs["peer"]], line.message, line.attrs["phase"]+line.attrs["cause"], line.attrs["err"]))
		}
	}
	slices.Sort(lines)
	return lines
}

// comeBack: the network is there again. Who kept his connection learns at once
// that nobody is at the other end, and a new one works.
func (h *halfDead) comeBack(server childReport) {
	h.t.Helper()
	begun := time.Now()
	old := h.clients["idle"]
	_, err := io.WriteString(old, get11)
	if err == nil {
		_, err = old.Read(make([]byte, 1))
	}
	passed := time.Since(begun)
	h.t.Logf("the old connection: %v, after %v", err, passed.Round(10*time.Microsecond))
	if err == nil || os.IsTimeout(err) || passed > slack {
		h.t.Errorf("the old connection: %v, after %v", err, passed)
	}
	answer := talk(h.t, h.dial(server, 0, ""), "GET / HTTP/1.0\r\n\r\n")
	if !strings.HasSuffix(answer, "Hello, World!") {
		h.t.Errorf("a new connection: %q", answer)
	}
}

// A client that lives and takes no byte of its answer for long is none that has
// vanished, but one with a closed window. TCP_USER_TIMEOUT ends that one as
// well, whatever the server's own limits for slow readers are.
func TestClientThatTakesNothing(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		server *catamount.Server
		cause  string
	}{
		"TCPUserTimeout": {&catamount.Server{TCPUserTimeout: time.Second, WriteMinRate: -1}, "timed_out"},
		"WriteTimeout":   {&catamount.Server{WriteTimeout: time.Second}, "deadline"},
		"WriteMinRate":   {&catamount.Server{WriteMinRate: 1 << 30, WriteGrace: time.Second}, "too_slow"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			logs := &logBook{}
			test.server.Logger = slog.New(logs)
			test.server.OutputMemory = 4 << 20
			test.server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = w.Write(make([]byte, 2<<20))
			})
			l := listenWithSmallBuffers(t)
			serveOn(t, test.server, l)
			conn := dial(t, "tcp", l.Addr().String()).(*net.TCPConn)
			_ = conn.SetReadBuffer(4096)
			if _, err := io.WriteString(conn, get11); err != nil {
				t.Fatal(err)
			}
			poll(t, "the answer is given up", func() bool { return test.server.Stats().WriteErrors[test.cause] == 1 })
			noConnections(t, test.server)
			t.Log(logs.only(t, test.server, "response not delivered", map[string]string{"cause": test.cause}))
		})
	}
}
