package worker

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// stuck is a handler whose requests hang until the test lets them go; made
// inside the bubble.
type stuck struct {
	gates map[string]chan struct{} // by path; others do not hang
	ran   map[string]int
	mu    sync.Mutex
}

// inCrowd runs a test in a bubble with few places, whose handler hangs for the
// paths named.
func inCrowd(t *testing.T, change func(*Options), paths []string, test func(t *testing.T, k *fakeKernel, h *stuck)) {
	t.Helper()
	var h *stuck
	serve := func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.ran[r.URL.Path]++
		gate := h.gates[r.URL.Path]
		h.mu.Unlock()
		if gate != nil {
			<-gate
		}
		_, _ = io.WriteString(w, r.URL.Path)
	}
	quiet := func(o *Options) {
		o.MaxThreads = 1
		o.Timeouts = Timeouts{Linger: 2 * time.Second, Idle: 100 * time.Hour, AdvertisedIdle: 65 * time.Second}
		change(o)
	}
	inBubble(t, serve, quiet, func(t *testing.T, k *fakeKernel) {
		h = &stuck{gates: make(map[string]chan struct{}), ran: make(map[string]int)}
		for _, path := range paths {
			h.gates[path] = make(chan struct{})
		}
		defer h.releaseAll()
		test(t, k, h)
	})
}

func (h *stuck) release(path string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if gate := h.gates[path]; gate != nil {
		close(gate)
		delete(h.gates, path)
	}
}

func (h *stuck) releaseAll() {
	for _, path := range []string{"/hang", "/hang2", "/hang3"} {
		h.release(path)
	}
	synctest.Wait()
}

func (h *stuck) count(path string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ran[path]
}

// want503 checks the one answer that a client has got.
func (c *fakeSocket) want503(retryAfter string) {
	c.kernel.t.Helper()
	got := c.received()
	if !strings.HasPrefix(got, "HTTP/1.1 503 Service Unavailable\r\n") || !strings.Contains(got, "\r\nRetry-After: "+retryAfter+"\r\n") ||
		!strings.Contains(got, "\r\nContent-Type: text/plain; charset=utf-8\r\n") || !strings.HasSuffix(got, "\r\n\r\n"+unavailableText) ||
		strings.Count(got, "HTTP/1.1 ") != 1 {
		c.kernel.t.Fatalf("answer %q, want a 503 with Retry-After: %s", got, retryAfter)
	}
}

func (c *fakeSocket) want200(body string) {
	c.kernel.t.Helper()
	if got := c.received(); !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.HasSuffix(got, "\r\n\r\n"+body) || strings.Count(got, "HTTP/1.1 ") != 1 {
		c.kernel.t.Fatalf("answer %q, want 200 with %q", got, body)
	}
}

func (c *fakeSocket) wantNothing() {
	c.kernel.t.Helper()
	if got := c.received(); got != "" {
		c.kernel.t.Fatalf("answer %q, want none yet", got)
	}
}

func TestMaxBacklog(t *testing.T) {
	inCrowd(t, func(o *Options) { o.MaxBacklog = 2 }, []string{"/hang"}, func(t *testing.T, k *fakeKernel, h *stuck) {
		served, first, second, third := k.connect(), k.connect(), k.connect(), k.connect()
		served.send(getPath("/hang"))
		first.send(getPath("/1"))
		k.pass(3 * time.Second)
		second.send(getPath("/2"))
		k.pass(time.Second)
		third.send(getPath("/3"))
		third.want503("1")
		for _, c := range []*fakeSocket{served, first, second} {
			c.wantNothing()
		}
		if state := third.state(); !state.shutAt.IsZero() || !state.closedAt.IsZero() {
			t.Error("the connection is not kept")
		}
		k.pass(time.Hour) // no limit of age
		third.send(getPath("/3"))
		third.want503("1")
		stats := k.Stats()
		if stats.Overload["backlog"] != 2 || stats.Overload["age"] != 0 || stats.Statuses["5xx"] != 2 || stats.RequestsCount != 1 {
			t.Errorf("Overload %v, Statuses %v, RequestsCount %d", stats.Overload, stats.Statuses, stats.RequestsCount)
		}
		h.release("/hang")
		synctest.Wait()
		served.want200("/hang")
		first.want200("/1")
		second.want200("/2")
		if n := h.count("/3"); n != 0 {
			t.Errorf("a refused request was run %d times", n)
		}
		third.send(getPath("/3"))
		third.want200("/3")
		k.stop()
		line := k.logs.next(t, "request refused (503): overload")
		if line.attrs["reason"] != "backlog" || line.attrs["backlog"] != int64(2) || line.attrs["oldest"] != 4*time.Second || line.level.String() != "WARN" {
			t.Errorf("logged %v %v", line.level, line.attrs)
		}
	})
}

// Requests for which there are places are not refused, however many come at
// once.
func TestMaxBacklogCountsNoBurst(t *testing.T) {
	const places = 40
	change := func(o *Options) { o.MaxBacklog, o.MaxThreads = 1, places }
	inCrowd(t, change, []string{"/hang"}, func(t *testing.T, k *fakeKernel, h *stuck) {
		var clients []*fakeSocket
		for range places + 2 {
			clients = append(clients, k.connect())
		}
		for _, c := range clients {
			c.put(getPath("/hang"), false)
		}
		held, gate := make(chan struct{}), make(chan struct{})
		_ = k.reactor.Do(func() { close(held); <-gate }) // what follows is one batch
		<-held
		for _, c := range clients {
			c.event(1)
		}
		close(gate)
		synctest.Wait()
		refused := 0
		for _, c := range clients {
			if c.received() != "" {
				refused++
			}
		}
		if n := h.count("/hang"); n != places || refused != 1 {
			t.Errorf("%d run and %d refused, want %d, 1, and one waiting", n, refused, places)
		}
	})
}

// Age holds although no place ever becomes free, for each request by itself.
func TestMaxQueueWait(t *testing.T) {
	change := func(o *Options) { o.MaxQueueWait, o.RetryAfter = 2*time.Second, 1500*time.Millisecond }
	inCrowd(t, change, []string{"/hang"}, func(t *testing.T, k *fakeKernel, h *stuck) {
		k.connect().send(getPath("/hang"))
		k.pass(time.Hour) // the reactor sleeps; nobody waits
		var clients []*fakeSocket
		var starts []time.Time
		for range 5 {
			c := k.connect()
			starts = append(starts, time.Now())
			c.send(getPath("/late"))
			c.wantNothing()
			clients = append(clients, c)
			k.pass(300 * time.Millisecond)
		}
		k.pass(3 * time.Second)
		for i, c := range clients {
			if took := c.state().answeredAt.Sub(starts[i]); took < 2*time.Second || took > 2*time.Second+time.Millisecond {
				t.Errorf("client %d was refused after %v", i, took)
			}
			c.want503("2")
		}
		if stats := k.Stats(); stats.Overload["age"] != 5 || stats.Overload["backlog"] != 0 || stats.Backlog != 0 {
			t.Errorf("Overload %v, Backlog %d", stats.Overload, stats.Backlog)
		}
		h.release("/hang")
		synctest.Wait()
		if n := h.count("/late"); n != 0 {
			t.Errorf("refused requests were run %d times", n)
		}
		clients[0].send(getPath("/again"))
		clients[0].want200("/again")
		k.stop()
		line := k.logs.next(t, "request refused (503): overload")
		if line.attrs["reason"] != "age" || line.attrs["backlog"] != int64(4) || line.attrs["oldest"] != 2*time.Second {
			t.Errorf("logged %v", line.attrs)
		}
	})
}

// More than the reactor refuses in one batch.
func TestMaxQueueWaitOfMany(t *testing.T) {
	inCrowd(t, func(o *Options) { o.MaxQueueWait = time.Second }, []string{"/hang"}, func(t *testing.T, k *fakeKernel, h *stuck) {
		k.connect().send(getPath("/hang"))
		start := time.Now()
		var clients []*fakeSocket
		for range 3*expireShare + 1 {
			c := k.connect()
			c.send(getPath("/late"))
			clients = append(clients, c)
		}
		k.pass(2 * time.Second)
		for _, c := range clients {
			if took := c.state().answeredAt.Sub(start); took < time.Second || took > time.Second+time.Millisecond {
				t.Fatalf("refused after %v", took)
			}
			c.want503("1")
		}
	})
}

// A place that comes to a request too late does not run it. (The reactor is
// kept from being faster.)
func TestPlaceComesTooLate(t *testing.T) {
	inCrowd(t, func(o *Options) { o.MaxQueueWait = time.Second }, []string{"/hang"}, func(t *testing.T, k *fakeKernel, h *stuck) {
		k.connect().send(getPath("/hang"))
		late, inTime := k.connect(), k.connect()
		late.send(getPath("/late"))
		k.pass(time.Second / 2)
		inTime.send(getPath("/in-time"))
		gate := make(chan struct{})
		_ = k.reactor.Do(func() { <-gate })
		k.pass(time.Second/2 + time.Millisecond)
		h.release("/hang")
		synctest.Wait()
		late.want503("1")
		inTime.want200("/in-time")
		close(gate)
		synctest.Wait()
		if n := h.count("/late"); n != 0 {
			t.Errorf("the request was run %d times", n)
		}
		stats := k.Stats()
		if stats.Overload["age"] != 1 || stats.Statuses["5xx"] != 1 || stats.RequestsCount != 2 {
			t.Errorf("Overload %v, Statuses %v, RequestsCount %d", stats.Overload, stats.Statuses, stats.RequestsCount)
		}
		late.send(getPath("/again"))
		late.want200("/again")
	})
}

// What follows a refused request on its connection depends on the request as
// it does after any other answer.
func TestRefusedConnection(t *testing.T) {
	for _, test := range []struct {
		name, request string
		change        func(*Options)
		line          string // what the answer has to say
		kept          bool
		lingers       bool // it cannot know that it ends
	}{
		{"keep-alive", get, nil, "Connection: keep-alive\r\n", true, false},
		{"close", getPath("/", "Connection: close"), nil, "Connection: close\r\n", false, false},
		{"close, and more", getPath("/", "Connection: close") + get, nil, "Connection: close\r\n", false, true},
		{"HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", nil, "HTTP/1.0 503 Service Unavailable\r\n", false, false},
		{"HTTP/1.0 keep-alive", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", nil, "Connection: keep-alive\r\n", true, false},
		{"HEAD", "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", nil, "Content-Length: 24\r\n", true, false},
		{"body", post("some body"), nil, "Content-Length: 24\r\n", true, false},
		{"last of its connection", get, func(o *Options) { o.MaxKeepAlive = 1 }, "Connection: close\r\n", false, true},
		{"no keep-alive", get, func(o *Options) { o.KeepAlive = false }, "Connection: close\r\n", false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			change := func(o *Options) {
				o.MaxBacklog = 1
				if test.change != nil {
					test.change(o)
				}
			}
			inCrowd(t, change, []string{"/hang"}, func(t *testing.T, k *fakeKernel, h *stuck) {
				k.connect().send(getPath("/hang"))
				k.connect().send(getPath("/waits"))
				c := k.connect()
				c.send(test.request)
				got := c.received()
				head, body, whole := strings.Cut(got, "\r\n\r\n")
				if !whole || !strings.Contains(head+"\r\n", test.line) || !strings.Contains(head, "\r\nRetry-After: 1") {
					t.Errorf("answer %q, want %q in it", got, test.line)
				}
				if want := unavailableText; test.name == "HEAD" && body != "" || test.name != "HEAD" && body != want {
					t.Errorf("body %q", body)
				}
				if state := c.state(); state.closedAt.IsZero() != (test.kept || test.lingers) || state.shutAt.IsZero() != !test.lingers {
					t.Errorf("shut down at %v, closed at %v", state.shutAt, state.closedAt)
				}
				h.release("/hang")
				synctest.Wait()
				if test.kept {
					c.send(get)
					c.want200("/")
					return
				}
				k.pass(3 * time.Second)
				if state := c.state(); state.closedAt.IsZero() || state.reset {
					t.Errorf("closed at %v, reset %v", state.closedAt, state.reset)
				}
			})
		})
	}
}

// The answers to requests that came together stay in order, refused or not,
// and each request has its own time.
func TestRefusedPipeline(t *testing.T) {
	inCrowd(t, func(o *Options) { o.MaxQueueWait = time.Second }, []string{"/hang", "/hang2"}, func(t *testing.T, k *fakeKernel, h *stuck) {
		c, other := k.connect(), k.connect()
		c.send(getPath("/hang") + getPath("/b") + getPath("/c") + getPath("/d"))
		k.pass(time.Second / 2)
		other.send(getPath("/hang2"))
		k.pass(time.Second / 4)
		h.release("/hang")
		synctest.Wait()
		c.want200("/hang") // at once, and /b goes behind the other's request
		for range 2 {
			k.pass(time.Second - time.Millisecond)
			c.wantNothing()
			k.pass(time.Millisecond)
			c.want503("1")
		}
		h.release("/hang2")
		synctest.Wait()
		c.want200("/d")
		other.want200("/hang2")
	})
}

// Many pipelined requests that find the todo full: each is refused, in order,
// and the last byte is not lost.
func TestRefusedLongPipeline(t *testing.T) {
	inCrowd(t, func(o *Options) { o.MaxBacklog = 1 }, []string{"/hang"}, func(t *testing.T, k *fakeKernel, h *stuck) {
		k.connect().send(getPath("/hang"))
		k.connect().send(getPath("/waits"))
		c := k.connect()
		c.send(strings.Repeat(getPath("/"), 1000) + "GET /last HT")
		if n := strings.Count(c.received(), "HTTP/1.1 503 "); n != 1000 {
			t.Errorf("%d answers to 1000 requests", n)
		}
		h.release("/hang")
		synctest.Wait()
		c.send("TP/1.1\r\nHost: h\r\n\r\n")
		c.want200("/last")
	})
}

// A place that finds its client's next request, and the todo full.
func TestRefusedByPlace(t *testing.T) {
	change := func(o *Options) { o.MaxBacklog, o.MaxThreads, o.MaxFastInline = 1, 2, 1 }
	inCrowd(t, change, []string{"/hang", "/hang2"}, func(t *testing.T, k *fakeKernel, h *stuck) {
		c, waiting := k.connect(), k.connect()
		start, rest := getPath("/c")[:10], getPath("/c")[10:]
		c.send(getPath("/hang") + getPath("/b") + start)
		k.connect().send(getPath("/hang2"))
		waiting.send(getPath("/waits"))
		if err := k.pool.Resize(0, 1); err != nil { // one more busy than may be
			t.Fatal(err)
		}
		h.release("/hang")
		synctest.Wait()
		got := c.received()
		if first, rest, _ := strings.Cut(got, "/hang"); !strings.HasPrefix(first, "HTTP/1.1 200") || strings.Count(rest, "HTTP/1.1 503") != 1 {
			t.Errorf("answers %q, want 200, 503", got)
		}
		if n := h.count("/b"); n != 0 {
			t.Error("a refused request was run")
		}
		waiting.want200("/waits") // the place has gone on
		c.send(rest)              // before that it may have been refused in its turn
		h.release("/hang2")
		synctest.Wait()
		c.want200("/c")
	})
}

// A place that puts its client's next request behind those who wait makes room
// for one of them: a full todo is no reason to refuse it.
func TestPlaceMakesRoom(t *testing.T) {
	inCrowd(t, func(o *Options) { o.MaxBacklog = 1 }, []string{"/hang"}, func(t *testing.T, k *fakeKernel, h *stuck) {
		c, waiting := k.connect(), k.connect()
		c.send(getPath("/hang") + getPath("/b"))
		waiting.send(getPath("/waits"))
		k.pass(time.Second)
		h.release("/hang")
		synctest.Wait()
		waiting.want200("/waits")
		if body, rest := cutAnswer(t, c.received()); body != "/hang" || !strings.HasSuffix(rest, "\r\n\r\n/b") {
			t.Errorf("answers %q, and %q", body, rest)
		}
	})
}

// What a refused request held is given back.
func TestRefusedRequestIsAbandoned(t *testing.T) {
	change := func(o *Options) { o.MaxQueueWait, o.BodyMemory = time.Second, 10 }
	inCrowd(t, change, []string{"/hang"}, func(t *testing.T, k *fakeKernel, h *stuck) {
		k.connect().send(getPath("/hang"))
		c := k.connect()
		c.send(post("longer than ten bytes"))
		waiting := make(chan *exchange, 2)
		_ = k.reactor.Do(func() {
			k.reactor.Each(func(sl *slot, _ bool) {
				if x := sl.Value.exchange.Load(); x.body != nil {
					waiting <- x
				}
			})
		})
		x := <-waiting
		x.body.mu.Lock()
		if x.body.file == nil || x.context.Err() != nil {
			t.Error("there is nothing to give back")
		}
		x.body.mu.Unlock()
		k.pass(time.Second)
		c.want503("1")
		if !x.body.closed || x.body.file != nil || x.context.Err() != context.Canceled {
			t.Errorf("body closed %v, file %v, context %v", x.body.closed, x.body.file, x.context.Err())
		}
	})
}

// A reactor that went to sleep while nobody waited is told of a request that a
// place puts into the todo.
func TestSleepingReactorIsTold(t *testing.T) {
	change := func(o *Options) { o.MaxQueueWait, o.MaxThreads, o.MaxFastInline = time.Second, 2, 1 }
	inCrowd(t, change, []string{"/hang", "/hang2"}, func(t *testing.T, k *fakeKernel, h *stuck) {
		k.connect().send(getPath("/hang"))
		c := k.connect()
		c.send(getPath("/hang2") + getPath("/b"))
		if err := k.pool.Resize(0, 1); err != nil { // the second place goes when it is free
			t.Fatal(err)
		}
		k.pass(time.Hour)
		h.release("/hang2")
		synctest.Wait()
		c.want200("/hang2")
		k.pass(time.Second - time.Millisecond)
		c.wantNothing()
		k.pass(time.Millisecond)
		c.want503("1")
	})
}

// A client that does not take its 503 keeps nobody, and the rest follows.
func TestRefusedClientThatDoesNotRead(t *testing.T) {
	change := func(o *Options) {
		o.MaxBacklog = 1
		o.Timeouts.WriteMinRate, o.Timeouts.WriteGrace = 1000, 10*time.Second
	}
	inCrowd(t, change, []string{"/hang"}, func(t *testing.T, k *fakeKernel, h *stuck) {
		k.connect().send(getPath("/hang"))
		k.connect().send(getPath("/waits"))
		slow, never := k.connect(), k.connect()
		slow.setRoom(10)
		never.setRoom(10)
		slow.send(get + getPath("/next"))
		never.send(get)
		h.release("/hang")
		synctest.Wait()
		k.pass(5 * time.Second)
		slow.take(-1)
		answers := slow.received()
		if strings.Count(answers, "HTTP/1.1 ") != 2 || !strings.HasPrefix(answers, "HTTP/1.1 503") || !strings.HasSuffix(answers, "\r\n\r\n/next") {
			t.Errorf("answers %q", answers)
		}
		k.pass(6 * time.Second)
		if never.state().closedAt.IsZero() {
			t.Error("a client that never reads is not closed")
		}
		if n := k.Stats().WriteErrors["too_slow"]; n != 1 {
			t.Errorf("%d clients too slow, want 1", n)
		}
	})
}

// Clients that leave while they wait break nothing.
func TestWaitingClientLeaves(t *testing.T) {
	inCrowd(t, func(o *Options) { o.MaxQueueWait = time.Second }, []string{"/hang"}, func(t *testing.T, k *fakeKernel, h *stuck) {
		k.connect().send(getPath("/hang"))
		half, reset, stays := k.connect(), k.connect(), k.connect()
		half.sendAndFinish(getPath("/half"))
		reset.send(getPath("/reset"))
		stays.send(getPath("/stays"))
		reset.fail(unix.ECONNRESET)
		k.pass(2 * time.Second)
		half.want503("1") // it has only finished sending
		reset.wantNothing()
		stays.want503("1")
		if half.state().closedAt.IsZero() || reset.state().closedAt.IsZero() || !stays.state().closedAt.IsZero() {
			t.Error("closed are not those who have left")
		}
		stats := k.Stats()
		if stats.Overload["age"] != 3 || stats.Gone != 2 || stats.WriteErrors["reset"] != 1 {
			t.Errorf("Overload %v, Gone %d, WriteErrors %v", stats.Overload, stats.Gone, stats.WriteErrors)
		}
		h.release("/hang")
		synctest.Wait()
		stays.send(getPath("/again"))
		stays.want200("/again")
	})
}

// During Shutdown whoever waits is served, or refused in time, and told that
// the connection ends.
func TestOverloadDuringShutdown(t *testing.T) {
	change := func(o *Options) { o.MaxQueueWait, o.MaxThreads = 10*time.Second, 2 }
	inCrowd(t, change, []string{"/hang", "/hang2"}, func(t *testing.T, k *fakeKernel, h *stuck) {
		hung := k.connect()
		hung.send(getPath("/hang"))
		k.connect().send(getPath("/hang2"))
		served, refused := k.connect(), k.connect()
		served.send(getPath("/hang3"))
		refused.send(getPath("/refused"))
		h.mu.Lock()
		h.gates["/hang3"] = make(chan struct{})
		h.mu.Unlock()
		ended := make(chan error, 1)
		go func() { ended <- k.Shutdown(context.Background()) }()
		k.pass(5 * time.Second)
		h.release("/hang2") // its place goes on to the one who waits
		k.pass(10 * time.Second)
		got := refused.received()
		if !strings.HasPrefix(got, "HTTP/1.1 503") || !strings.Contains(got, "\r\nConnection: close\r\n") {
			t.Errorf("answer %q", got)
		}
		select {
		case err := <-ended:
			t.Fatalf("Shutdown has returned %v, while handlers run", err)
		default:
		}
		h.release("/hang")
		h.release("/hang3")
		k.pass(3 * time.Second)
		for c, path := range map[*fakeSocket]string{served: "/hang3", hung: "/hang"} {
			if got := c.received(); !strings.HasSuffix(got, "\r\n\r\n"+path) || !strings.Contains(got, "\r\nConnection: close\r\n") {
				t.Errorf("answer %q, want %s", got, path)
			}
		}
		if err := <-ended; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
}

// Without the options requests wait as long as it takes; in blocking mode they
// do so with them.
func TestNoOverload(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"off":           func(o *Options) { o.RetryAfter = time.Second },
		"blocking mode": func(o *Options) { o.QueueRequests, o.MaxBacklog, o.MaxQueueWait = false, 1, time.Second },
	} {
		t.Run(name, func(t *testing.T) {
			inCrowd(t, change, []string{"/hang"}, func(t *testing.T, k *fakeKernel, h *stuck) {
				k.connect().send(getPath("/hang", "Connection: close"))
				var clients []*fakeSocket
				for range 100 {
					c := k.connect()
					c.send(getPath("/waits", "Connection: close"))
					clients = append(clients, c)
				}
				k.pass(50 * time.Hour)
				h.release("/hang")
				synctest.Wait()
				k.pass(time.Hour)
				for _, c := range clients {
					c.want200("/waits")
				}
				if stats := k.Stats(); stats.Overload["backlog"] != 0 || stats.Overload["age"] != 0 {
					t.Errorf("Overload %v", stats.Overload)
				}
			})
		})
	}
}

// Real sockets, all places hung: the client is told in time, and its
// connection serves on.
func TestMaxQueueWaitOnSockets(t *testing.T) {
	const wait = 300 * time.Millisecond // the first request must not wait so long on a busy machine
	gate, running := make(chan struct{}), make(chan struct{}, 1)
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			running <- struct{}{}
			waitFor(t, gate)
		}
		hello(w, r)
	}, func(o *Options) { o.MaxThreads, o.MaxQueueWait, o.RetryAfter = 1, wait, time.Minute })
	hung, c := ts.dial(), ts.dial()
	hung.send(getPath("/hang"))
	waitFor(t, running)
	for range 2 {
		start := time.Now()
		c.send(get)
		if a := c.want(503, unavailableText); a.Header.Get("Retry-After") != "60" || a.Close {
			t.Errorf("header %v, close %v", a.Header, a.Close)
		}
		if took := time.Since(start); took < wait {
			t.Errorf("refused after %v", took)
		}
	}
	close(gate)
	hung.want(200, "Hello, World!")
	// At once, unless the place's goroutine takes its time to begin.
	ts.until("the connection is served", func() bool { c.send(get); return c.answer().StatusCode == 200 })
}

// Every request is answered once, in order, by the application or with 503, and
// what is counted adds up, however narrow it gets.
func TestOverloadUnderPressure(t *testing.T) {
	const clients, rounds, pipelined = 12, 60, 5
	var ran atomic.Int64
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		ran.Add(1)
		for start := time.Now(); time.Since(start) < 100*time.Microsecond; {
		}
		_, _ = io.WriteString(w, r.URL.Path)
	}, func(o *Options) {
		o.MaxThreads, o.MaxBacklog, o.MaxQueueWait, o.MaxFastInline = 2, 3, time.Millisecond, 2
	})
	var done sync.WaitGroup
	var served, refused atomic.Int64
	for n := range clients {
		c := ts.dial()
		done.Go(func() {
			for round := range rounds {
				var input strings.Builder
				for i := range pipelined {
					input.WriteString(getPath(fmt.Sprintf("/%d-%d-%d", n, round, i)))
				}
				if _, err := io.WriteString(c, input.String()); err != nil {
					t.Error(err)
					return
				}
				for i := range pipelined {
					a, err := http.ReadResponse(c.reader, nil)
					if err != nil {
						t.Errorf("client %d: %v", n, err)
						return
					}
					body, err := io.ReadAll(a.Body)
					switch want := fmt.Sprintf("/%d-%d-%d", n, round, i); {
					case err == nil && a.StatusCode == 200 && string(body) == want:
						served.Add(1)
					case err == nil && a.StatusCode == 503 && string(body) == unavailableText:
						refused.Add(1)
					default:
						t.Errorf("answer %d %q (%v) to %s", a.StatusCode, body, err, want)
						return
					}
				}
			}
		})
	}
	done.Wait()
	stats := ts.Stats()
	counted := stats.Overload["backlog"] + stats.Overload["age"]
	if served.Load() != ran.Load() || uint64(refused.Load()) != counted || served.Load()+refused.Load() != clients*rounds*pipelined {
		t.Errorf("%d served and %d run, %d refused and %d counted, of %d", served.Load(), ran.Load(), refused.Load(), counted, clients*rounds*pipelined)
	}
	t.Logf("%d served, refused: %v", served.Load(), stats.Overload)
}

// BenchmarkServeLimited is BenchmarkServe/wrk with what this file and
// handlertimeout_test.go test.
func BenchmarkServeLimited(b *testing.B) {
	for name, change := range map[string]func(*Options){
		"off":     func(*Options) {},
		"backlog": func(o *Options) { o.MaxBacklog = 1000 },
		"age":     func(o *Options) { o.MaxQueueWait = time.Minute },
		"handler": func(o *Options) { o.HandlerTimeout = time.Minute },
	} {
		b.Run(name, func(b *testing.B) {
			run := benchServer(b, "GET / HTTP/1.1\r\nHost: 127.0.0.1:9292\r\n\r\n", hello, change)
			run(1)
			b.ReportAllocs()
			b.ResetTimer()
			run((b.N + benchClients - 1) / benchClients)
		})
	}
}
