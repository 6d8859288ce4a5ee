package worker

import (
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/catamount-server/catamount/reactor"
)

// blocking is the mode without the reactor's buffering, as the root package
// sets it.
func blocking(threads int) func(*Options) {
	return func(o *Options) { o.QueueRequests, o.KeepAlive, o.MaxThreads = false, false, threads }
}

// A slow client occupies a place for as long as it is slow: that is what the
// mode is there to show. Nobody else is accepted meanwhile.
func TestBlockingIsHeldUpBySlowClients(t *testing.T) {
	served := make(chan string, 10)
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		served <- r.URL.Path
		hello(w, r)
	}, blocking(2))
	slow := []*client{ts.dial(), ts.dial()}
	for _, c := range slow {
		c.send("GET /slow HTTP/1.1\r\nHos")
	}
	ts.until("both hold a place", func() bool { return ts.Stats().BusyThreads == 2 && ts.Stats().Accepted == 2 })
	quick := ts.dial()
	quick.send(getPath("/quick"))
	// The reactor has nothing to do with it: the gate is shut.
	for range 3 {
		ts.holdReactor()()
	}
	if stats := ts.Stats(); stats.Accepted != 2 || stats.Backlog != 0 || stats.RequestsCount != 0 {
		t.Errorf("accepted %d, backlog %d, requests %d while the pool is full", stats.Accepted, stats.Backlog, stats.RequestsCount)
	}
	slow[0].send("t: h\r\n\r\n")
	slow[0].want(200, "Hello, World!")
	quick.want(200, "Hello, World!") // the place that is free now
	slow[1].send("t: h\r\n\r\n")
	slow[1].want(200, "Hello, World!")
	if first := waitFor(t, served); first != "/slow" {
		t.Errorf("%s was served first", first)
	}
}

// Without keep-alive a connection serves one request, and says so.
func TestBlockingServesOneRequest(t *testing.T) {
	ts := startServer(t, hello, blocking(2))
	for range 10 {
		c := ts.dial()
		c.send(get, get)
		if a := c.want(200, "Hello, World!"); !a.Close {
			t.Error("the end is not announced")
		}
		c.wantEnd()
	}
}

func TestBlockingKeepAlive(t *testing.T) {
	ts := startServer(t, hello, blocking(1), func(o *Options) { o.KeepAlive = true })
	c := ts.dial()
	for range 5 {
		c.send(get)
		c.want(200, "Hello, World!")
	}
	c.send(get, get, post("x"))
	for range 3 {
		c.want(200, "Hello, World!")
	}
	if stats := ts.Stats(); stats.BusyThreads != 1 {
		t.Errorf("BusyThreads = %d: the connection does not hold its place", stats.BusyThreads)
	}
	_ = c.CloseWrite()
	c.wantEnd()
}

// The gate must open again however the end of a request and the look at the
// pool cross: here a place becomes free just while the gate is shutting.
func TestBlockingGateMissesNoFreePlace(t *testing.T) {
	entered, gate := make(chan struct{}), make(chan struct{})
	poller, err := reactor.NewEpoll()
	if err != nil {
		t.Fatal(err)
	}
	crossing := &crossingPoller{Poller: poller}
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			close(entered)
			waitFor(t, gate)
		}
		hello(w, r)
	}, blocking(2), func(o *Options) { o.poller = crossing })
	if err := ts.reactor.Do(func() {
		crossing.removing = func() { // on the reactor, while the gate shuts
			close(gate)
			for late := time.Now().Add(patience / 4); ts.pool.Full() && time.Now().Before(late); {
				runtime.Gosched()
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	first := ts.dial()
	first.send(getPath("/wait"))
	waitFor(t, entered)
	silent := ts.dial() // takes the second place: the pool is full, the gate shuts
	first.want(200, "Hello, World!")
	third := ts.dial()
	third.send(get)
	third.want(200, "Hello, World!")
	silent.send(get)
	silent.want(200, "Hello, World!")
}

// crossingPoller does something, once, while a listener is disarmed.
type crossingPoller struct {
	reactor.Poller
	listener int
	removing func()
}

func (p *crossingPoller) AddListener(fd int, generation uint32) error {
	p.listener = fd
	return p.Poller.AddListener(fd, generation)
}

func (p *crossingPoller) Remove(fd int) error {
	err := p.Poller.Remove(fd)
	if fd == p.listener && p.removing != nil {
		removing := p.removing
		p.removing = nil
		removing()
	}
	return err
}

// Many short connections through few places: nobody is forgotten.
func TestBlockingUnderLoad(t *testing.T) {
	for _, threads := range []int{1, 2, 3} {
		ts := startServer(t, hello, blocking(threads))
		done := make(chan struct{})
		const clients, rounds = 4, 200
		for range clients {
			go func() {
				defer func() { done <- struct{}{} }()
				for range rounds {
					c := ts.dial()
					c.send(get)
					c.want(200, "Hello, World!")
					c.Close()
				}
			}()
		}
		for range clients {
			waitFor(t, done)
		}
		ts.stop()
	}
}

// Deadlines hold in this mode as well, and free the place.
func TestBlockingDeadlines(t *testing.T) {
	for _, test := range []struct {
		name, sent string
		set        func(*Timeouts)
		answer     string
	}{
		{"first byte", "", func(t *Timeouts) { t.FirstByte = 30 * time.Second }, ""},
		{"head", "GET / HT", func(t *Timeouts) { t.Head = 30 * time.Second }, "HTTP/1.1 408"},
		{"request", "GET / HT", func(t *Timeouts) { t.Request = 30 * time.Second }, "HTTP/1.1 408"},
		{"body idle", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabc", func(t *Timeouts) { t.BodyIdle = 30 * time.Second }, "HTTP/1.1 408"},
		{"body rate", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n", func(t *Timeouts) { t.BodyMinRate, t.BodyGrace = 500, 30*time.Second }, "HTTP/1.1 408"},
	} {
		t.Run(test.name, func(t *testing.T) {
			change := func(o *Options) { blocking(1)(o); only(test.set)(o) }
			inBubble(t, hello, change, func(t *testing.T, k *fakeKernel) {
				start := time.Now()
				c := k.connect()
				if test.sent != "" {
					c.send(test.sent)
				}
				k.pass(20 * time.Second)
				if busy := k.Stats().BusyThreads; busy != 1 {
					t.Errorf("%d places busy with a slow client, want 1", busy)
				}
				k.pass(time.Minute)
				state := c.state()
				k.onTime("end", state.shutAt, start, 30*time.Second)
				if got := c.received(); !strings.HasPrefix(got, test.answer) || test.answer == "" && got != "" {
					t.Errorf("answer %q", got)
				}
				if busy := k.Stats().BusyThreads; busy != 0 {
					t.Errorf("%d places busy afterwards", busy)
				}
			})
		})
	}
}

// Each request starts the idle time anew, and its end is counted.
func TestBlockingIdleDeadline(t *testing.T) {
	change := func(o *Options) {
		blocking(1)(o)
		o.KeepAlive = true
		only(func(t *Timeouts) { t.FirstByte, t.Idle = 30*time.Second, 75*time.Second })(o)
	}
	inBubble(t, hello, change, func(t *testing.T, k *fakeKernel) {
		c := k.connect()
		for i := range 4 {
			c.send(get)
			if got := c.received(); !strings.HasPrefix(got, "HTTP/1.1 200") {
				t.Fatalf("request %d: answer %q", i, got)
			}
			if i < 3 {
				k.pass(60 * time.Second)
			}
		}
		start := time.Now()
		k.pass(2 * time.Minute)
		k.onTime("end of an idle connection", c.state().shutAt, start, 75*time.Second)
		if stats := k.Stats(); stats.IdleClosed != 1 || stats.BusyThreads != 0 {
			t.Errorf("IdleClosed %d, BusyThreads %d", stats.IdleClosed, stats.BusyThreads)
		}
	})
}
