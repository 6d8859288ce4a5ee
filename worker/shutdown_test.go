package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// modes runs a test with and without the reactor's buffering.
func modes(t *testing.T, test func(t *testing.T, mode func(*Options))) {
	t.Run("queueing", func(t *testing.T) { test(t, func(*Options) {}) })
	t.Run("blocking", func(t *testing.T) { test(t, func(o *Options) { o.QueueRequests = false }) })
}

// shutdown begins one, and delivers its result.
func (ts *testServer) shutdown() chan error {
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		done <- ts.Shutdown(ctx)
	}()
	return done
}

func (ts *testServer) wantShutdown(done chan error) {
	ts.t.Helper()
	if err := waitFor(ts.t, done); err != nil {
		ts.t.Errorf("Shutdown = %v", err)
	}
	if err := waitFor(ts.t, ts.served); err != http.ErrServerClosed {
		ts.t.Errorf("Serve = %v", err)
	}
}

// Idle connections see their end, never a reset, and at once.
func TestShutdownWithIdleConnections(t *testing.T) {
	modes(t, func(t *testing.T, mode func(*Options)) {
		ts := startServer(t, hello, mode)
		var clients []*client
		for i := range 20 {
			c := ts.dial()
			if i > 5 { // the others have not sent anything yet
				c.send(get)
				c.want(200, "Hello, World!")
			}
			clients = append(clients, c)
		}
		ts.until("all are accepted", func() bool { return ts.Stats().Accepted == 20 })
		done := ts.shutdown()
		for _, c := range clients {
			c.wantEnd()
			c.Close()
		}
		ts.wantShutdown(done)
	})
}

// What runs is finished: its answer arrives whole and announces the end.
func TestShutdownFinishesRequests(t *testing.T) {
	modes(t, func(t *testing.T, mode func(*Options)) {
		entered, gate := make(chan struct{}, 3), make(chan struct{})
		ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
			entered <- struct{}{}
			waitFor(t, gate)
			if err := r.Context().Err(); err != nil {
				t.Errorf("the context has ended: %v", err)
			}
			hello(w, r)
		}, mode)
		var clients []*client
		for range cap(entered) {
			c := ts.dial()
			c.send(get)
			clients = append(clients, c)
		}
		for range clients {
			waitFor(t, entered)
		}
		done := ts.shutdown()
		waitFor(t, ts.drainBegun)
		ts.until("the listener is closed", func() bool {
			conn, err := net.Dial("tcp", ts.addr)
			if err == nil {
				conn.Close()
			}
			return err != nil
		})
		select {
		case err := <-done:
			t.Fatalf("Shutdown = %v while requests run", err)
		default:
		}
		close(gate)
		for _, c := range clients {
			if a := c.want(200, "Hello, World!"); !a.Close {
				t.Error("the end is not announced")
			}
			c.wantEnd()
			c.Close()
		}
		ts.wantShutdown(done)
	})
}

// Clients that are in the middle of sending a request may finish it.
func TestShutdownWaitsForRequestsUnderWay(t *testing.T) {
	modes(t, func(t *testing.T, mode func(*Options)) {
		ts := startServer(t, hello, mode)
		head, body := ts.dial(), ts.dial()
		head.send("GET / HTTP/1.1\r\nHos")
		body.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel")
		const sent = 19 + 50
		ts.until("the server has read both", func() bool { return ts.Stats().BytesIn == sent })
		done := ts.shutdown()
		waitFor(t, ts.drainBegun)
		head.send("t: h\r\n\r\n")
		body.send("lo")
		for _, c := range []*client{head, body} {
			if a := c.want(200, "Hello, World!"); !a.Close {
				t.Error("the end is not announced")
			}
			c.wantEnd()
			c.Close()
		}
		ts.wantShutdown(done)
	})
}

// A slow reader gets all of its answer.
func TestShutdownFinishesWriting(t *testing.T) {
	const size = 8 << 20 // more than sockets hold
	ts := startServer(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", size))
	}, func(o *Options) { o.OutputMemory = 2 * size })
	c := ts.dial()
	c.send(get)
	ts.waitState(StateWriting, 1)
	done := ts.shutdown()
	waitFor(t, ts.drainBegun)
	if a := c.answer(); len(a.body) != size || a.err != nil {
		t.Errorf("%d bytes, %v", len(a.body), a.err)
	}
	c.wantEnd()
	c.Close()
	ts.wantShutdown(done)
}

// Pipelined requests that have come are answered, the last with the
// announcement.
func TestShutdownDuringAPipeline(t *testing.T) {
	entered, gate := make(chan struct{}, 1), make(chan struct{})
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			entered <- struct{}{}
			waitFor(t, gate)
		}
		hello(w, r)
	})
	c := ts.dial()
	c.send(get, getPath("/wait"), get)
	c.want(200, "Hello, World!")
	waitFor(t, entered)
	done := ts.shutdown()
	waitFor(t, ts.drainBegun)
	close(gate)
	if a := c.want(200, "Hello, World!"); !a.Close {
		t.Error("the end is not announced")
	}
	c.wantEnd()
	c.Close()
	ts.wantShutdown(done)
}

// When the context ends first, what runs goes on; Close ends it.
func TestShutdownHonoursItsContext(t *testing.T) {
	modes(t, func(t *testing.T, mode func(*Options)) {
		entered, ended := make(chan struct{}), make(chan error, 1)
		ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
			close(entered)
			waitFor(t, r.Context().Done())
			ended <- r.Context().Err()
		}, mode)
		c := ts.dial()
		c.send(get)
		waitFor(t, entered)
		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(cause)
		if err := ts.Shutdown(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Shutdown = %v", err)
		}
		select {
		case err := <-ended:
			t.Fatalf("the request was ended: %v", err)
		default:
		}
		if err := ts.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
		if err := waitFor(t, ended); err != context.Canceled {
			t.Errorf("Err() = %v", err)
		}
		ts.wantShutdown(ts.shutdown())
	})
}

// A context that has ended is no reason to fail when nothing is left to wait for.
func TestShutdownOfIdleServerWithEndedContext(t *testing.T) {
	modes(t, func(t *testing.T, mode func(*Options)) {
		over, cancel := context.WithCancel(context.Background())
		cancel()
		ts := startServer(t, hello, mode)
		for range 20 {
			if err := ts.Shutdown(over); err != nil {
				t.Fatalf("Shutdown = %v", err)
			}
		}
		if err := waitFor(t, ts.served); err != http.ErrServerClosed {
			t.Errorf("Serve = %v", err)
		}
	})
}

// Hijacked connections are not waited for: they are their handlers' own.
func TestShutdownDoesNotWaitForHijackers(t *testing.T) {
	taken, gate := make(chan net.Conn, 1), make(chan struct{})
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		conn := hijack(t, w)
		if conn == nil {
			return
		}
		defer conn.Close()
		taken <- conn
		<-gate
	})
	c := ts.dial()
	c.send(get)
	conn := waitFor(t, taken)
	ctx, cancel := context.WithTimeout(context.Background(), patience/4)
	defer cancel()
	if err := ts.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown = %v", err)
	}
	if _, err := io.WriteString(conn, "alive\n"); err != nil {
		t.Errorf("the hijacked connection: %v", err)
	}
	if line, err := c.reader.ReadString('\n'); line != "alive\n" {
		t.Errorf("read %q, %v", line, err)
	}
	close(gate)
}

// What goes wrong in handlers that have outlived the server is logged all the
// same, in full and in whatever number.
func TestLogOutlivesTheServer(t *testing.T) {
	taken, gate := make(chan net.Conn, 1), make(chan struct{})
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		conn := hijack(t, w)
		if conn == nil {
			return
		}
		defer conn.Close()
		taken <- conn
		<-gate
		panic("late")
	})
	const handlers = 3
	for i := range handlers {
		c := ts.dial()
		c.send(getPath(fmt.Sprint("/", i)))
		waitFor(t, taken)
	}
	ts.wantShutdown(ts.shutdown())
	close(gate)
	for range handlers {
		ts.logs.next(t, "handler panicked")
	}
}

func TestRegisterOnShutdown(t *testing.T) {
	ts := startServer(t, hello)
	called := make(chan int, 2)
	ts.RegisterOnShutdown(func() { called <- 1 })
	ts.RegisterOnShutdown(func() { called <- 2 })
	done := ts.shutdown()
	if sum := waitFor(t, called) + waitFor(t, called); sum != 3 {
		t.Errorf("sum %d", sum)
	}
	ts.wantShutdown(done)
	if err := waitFor(t, ts.shutdown()); err != nil { // a second one finds nothing to do
		t.Errorf("Shutdown = %v", err)
	}
	if len(called) > 0 {
		t.Error("called again")
	}
	if err := ts.Serve(listenTCP(t)); err != http.ErrServerClosed {
		t.Errorf("Serve afterwards = %v", err)
	}
}

// Who is told of the end, and tells others (a balancer, a registry), finds nobody
// any more who would accept a connection.
func TestOnShutdownComesAfterTheListener(t *testing.T) {
	modes(t, func(t *testing.T, mode func(*Options)) {
		ts := startServer(t, hello, mode)
		dialed := make(chan error, 1)
		ts.RegisterOnShutdown(func() {
			conn, err := net.Dial("tcp", ts.addr)
			if err == nil {
				conn.Close()
			}
			dialed <- err
		})
		done := ts.shutdown()
		if err := waitFor(t, dialed); err == nil {
			t.Error("the listener is still open")
		}
		ts.wantShutdown(done)
	})
}

// Close cancels contexts and cuts connections, in whatever state they are.
func TestClose(t *testing.T) {
	modes(t, func(t *testing.T, mode func(*Options)) {
		entered, ended := make(chan struct{}), make(chan error, 1)
		ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/wait" {
				close(entered)
				waitFor(t, r.Context().Done())
				ended <- r.Context().Err()
			}
			hello(w, r)
		}, mode)
		running, idle, half, fresh := ts.dial(), ts.dial(), ts.dial(), ts.dial()
		running.send(getPath("/wait"))
		idle.send(get)
		idle.want(200, "Hello, World!")
		half.send("GET / HT")
		waitFor(t, entered)
		ts.until("all are accepted", func() bool { return ts.Stats().Accepted == 4 })
		if err := ts.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
		if err := waitFor(t, ended); err != context.Canceled {
			t.Errorf("Err() = %v", err)
		}
		for _, c := range []*client{running, idle, half, fresh} {
			if _, err := io.ReadAll(c.reader); errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a connection goes on: %v", err)
			}
		}
		if err := waitFor(t, ts.served); err != http.ErrServerClosed {
			t.Errorf("Serve = %v", err)
		}
	})
}

// Clients that the kernel has connected, while in blocking mode no place was free
// for them, are served as well: for them the server was there.
func TestShutdownServesTheQueue(t *testing.T) {
	entered, gate := make(chan struct{}, 6), make(chan struct{})
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		waitFor(t, gate)
		hello(w, r)
	}, func(o *Options) { o.QueueRequests, o.MinThreads, o.MaxThreads = false, 1, 1 })
	var clients []*client
	for i := range cap(entered) {
		c := ts.dial()
		c.send(get)
		if i == 0 {
			waitFor(t, entered)
		}
		clients = append(clients, c)
	}
	done := ts.shutdown()
	waitFor(t, ts.drainBegun)
	close(gate)
	for _, c := range clients {
		c.want(200, "Hello, World!")
	}
	ts.wantShutdown(done)
}

// An answer that Close cuts must not look whole, however fast its handler heeds
// the end of its context: the socket is shut first.
func TestCloseCutsAnswersFirst(t *testing.T) {
	modes(t, func(t *testing.T, mode func(*Options)) {
		begun, ended := make(chan struct{}), make(chan struct{})
		ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			close(begun)
			waitFor(t, r.Context().Done())
			close(ended)
		}, mode, func(o *Options) {
			o.sockets = kernelSockets()
			shut := o.sockets.shutdown
			var first sync.Once // the end of the test closes the server again
			o.sockets.shutdown = func(fd int) error {
				first.Do(func() {
					select {
					case <-ended:
						t.Error("the handler was told before the socket was shut")
					case <-time.After(patience / 100): // time enough for a handler to return
					}
				})
				return shut(fd)
			}
		})
		c := ts.dial()
		c.send(get)
		waitFor(t, begun)
		if err := ts.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
		resp, err := http.ReadResponse(c.reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(resp.Body); err == nil || string(body) != "half" {
			t.Errorf("the answer %q looks whole (error %v)", body, err)
		}
	})
}

// handedListener hands out connections that a test has made, also late ones: it
// may have accepted them just before it was closed.
type handedListener chan net.Conn

func (l handedListener) Accept() (net.Conn, error) {
	if conn := <-l; conn != nil {
		return conn, nil
	}
	return nil, net.ErrClosed
}
func (l handedListener) Close() error   { return nil }
func (l handedListener) Addr() net.Addr { return &net.UnixAddr{Name: "handed", Net: "handed"} }

// A connection that is accepted while Close closes everything is closed as well:
// nothing is sent once it has returned.
func TestCloseTurnsLateConnectionsAway(t *testing.T) {
	for name, wrap := range map[string]func(net.Conn) net.Conn{
		"socket": func(conn net.Conn) net.Conn { return conn },
		"bridge": func(conn net.Conn) net.Conn { return struct{ net.Conn }{conn} },
	} {
		t.Run(name, func(t *testing.T) {
			modes(t, func(t *testing.T, mode func(*Options)) {
				ts := newTestServer(t, hello, mode)
				l := make(handedListener)
				defer close(l)
				go func() { ts.served <- ts.Serve(l) }()
				ts.until("it accepts", func() bool { return ts.arriving.Load() == 1 })
				tcp := listenTCP(t)
				defer tcp.Close()
				c := dialTCP(t, tcp.Addr().String())
				accepted, err := tcp.Accept()
				if err != nil {
					t.Fatal(err)
				}
				c.send(get)
				if err := ts.Close(); err != nil {
					t.Errorf("Close = %v", err)
				}
				l <- wrap(accepted)
				if answer, _ := io.ReadAll(c.reader); len(answer) > 0 {
					t.Errorf("answered after Close: %q", clip(string(answer)))
				}
			})
		})
	}
}

// A client behind a bridge may be gone from the reactor while its last answer is
// still on its way: that is waited for.
func TestShutdownWaitsForBridges(t *testing.T) {
	ts := newTestServer(t, hello, func(o *Options) { o.Timeouts.Linger = patience })
	l := make(handedListener)
	go func() { ts.served <- ts.Serve(l) }()
	ours, theirs := net.Pipe()
	defer ours.Close()
	_ = ours.SetDeadline(time.Now().Add(patience))
	l <- theirs
	if _, err := io.WriteString(ours, getPath("/", "Connection: close")); err != nil {
		t.Fatal(err)
	}
	ts.until("the client is gone from the reactor", func() bool {
		return ts.Stats().RequestsCount == 1 && ts.reactor.Size() == 0
	})
	done := ts.shutdown()
	close(l)
	waitFor(t, ts.idleGone)
	_ = waitFor(t, ts.served)
	settled := make(chan struct{})
	_ = ts.reactor.Do(func() { close(settled) })
	select {
	case <-settled:
	case <-ts.finished:
	}
	select {
	case <-ts.drained:
		t.Error("the server has ended before the answer was read")
	default:
	}
	if answer, err := io.ReadAll(ours); err != nil || !strings.HasSuffix(string(answer), "Hello, World!") {
		t.Errorf("answer %q, %v", answer, err)
	}
	if err := waitFor(t, done); err != nil {
		t.Errorf("Shutdown = %v", err)
	}
}

// A client that keeps its connection may send its next request as soon as it has
// the answer, when the server has just begun to leave. If that is here, though
// nobody has been told yet, it is served.
func TestDrainLooksBeforeItLetsGo(t *testing.T) {
	var gate chan struct{}
	inBubble(t, func(w http.ResponseWriter, r *http.Request) {
		hello(w, r)
		if r.URL.Path == "/wait" {
			_ = http.NewResponseController(w).Flush()
			<-gate
		}
	}, nil, func(t *testing.T, k *fakeKernel) {
		gate = make(chan struct{})
		c := k.connect()
		c.send(getPath("/wait"))
		go k.beginDrain(false)
		<-k.idleGone
		c.put(get, false) // the event is still to come
		close(gate)
		synctest.Wait()
		if got := c.received(); strings.Count(got, "Hello, World!") != 2 || !strings.Contains(got, "Connection: close") {
			t.Errorf("received %q, want two answers, the second one with the announcement", got)
		}
	})
}

// However shutdown and requests cross, each client gets an answer or a quiet
// end, and Shutdown returns long before any deadline.
func TestShutdownUnderLoad(t *testing.T) {
	modes(t, func(t *testing.T, mode func(*Options)) {
		for range 30 {
			ts := startServer(t, hello, mode, func(o *Options) { o.MaxThreads = 4 })
			const clients = 4
			reported := make(chan error, clients)
			begun := make(chan struct{}, clients)
			for range clients {
				c := ts.dial()
				go func() { reported <- keepAsking(c, begun) }()
			}
			for range clients {
				waitFor(t, begun)
			}
			ts.wantShutdown(ts.shutdown())
			for range clients {
				if err := waitFor(t, reported); err != nil {
					t.Fatal(err)
				}
			}
			ts.stop()
		}
	})
}

// keepAsking sends requests until the connection ends, and says whether that
// was in order.
func keepAsking(c *client, begun chan struct{}) error {
	defer c.Close()
	for i := 0; ; i++ {
		if i == 1 {
			begun <- struct{}{}
		}
		// Sending may fail once the server has gone.
		_, _ = io.WriteString(c, get)
		a, err := http.ReadResponse(c.reader, nil)
		if err != nil {
			// A request that crossed our end on its way has no answer.
			return nil
		}
		if body, err := io.ReadAll(a.Body); err != nil || string(body) != "Hello, World!" {
			return errors.Join(errors.New("an answer was cut"), err)
		}
		if a.Close {
			return nil
		}
	}
}

// Who connects while the server is losing its last client, but has not closed
// its listener yet, is served like anybody else.
func TestShutdownInAnEmptyMoment(t *testing.T) {
	modes(t, func(t *testing.T, mode func(*Options)) {
		ts := startServer(t, hello, mode)
		first := ts.dial()
		first.send(get)
		first.want(200, "Hello, World!")
		release := ts.holdReactor()
		done := ts.shutdown()
		waitFor(t, ts.drainBegun)
		first.Close()
		second := ts.dial()
		release()
		if err := waitFor(t, ts.served); err != http.ErrServerClosed {
			t.Errorf("Serve = %v", err)
		}
		second.send(get)
		second.want(200, "Hello, World!")
		second.wantEnd()
		second.Close()
		if err := waitFor(t, done); err != nil {
			t.Errorf("Shutdown = %v", err)
		}
	})
}
