package worker

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/catamount-server/catamount/parser"
	"github.com/catamount-server/catamount/reactor"
	"github.com/catamount-server/catamount/threadpool"
)

// Server is one serving process: listeners, a reactor and a pool.
type Server struct {
	options Options
	reactor *reactor.Reactor[Client]
	pool    *threadpool.ThreadPool[*slot]
	sockets *sockets
	log     *eventLog
	stats   *counters // in the shared page, or on the heap
	date    dateLine
	// shadow is what handlers find under http.ServerContextKey; some look at
	// its fields.
	shadow    *http.Server
	aliveLine string // the Keep-Alive field, or ""
	usualEnd  string // of the head of an answer after which the connection goes on
	floor     []byte // see heapFloor; never read
	overload  overload
	dumps     stackDumps

	// The reactor's own.
	readBuffer []byte
	head       parser.Head
	again      []readAgain
	turns      int // in a row of the first reader among them
	gate       gate
	// closedListeners: no listener brings a connection any more. A server that
	// leaves may have no client for a moment before that.
	closedListeners bool
	closed          bool // by Close: who still comes is turned away

	listeners struct {
		sync.Mutex
		list []*listener
	}
	notFull struct {
		sync.Mutex
		list []func()
	}
	loans loans
	// What answers to slow readers take, in memory and in files.
	heldMemory, heldFiles atomic.Int64
	blocks                blockBudget  // of request bodies
	flows                 atomic.Int32 // see letFlow
	// arriving are connections, and loops that bring them, on their way to the
	// reactor, and bridges on which a client's last bytes are on their way to it.
	arriving atomic.Int64
	// bridging ends when those who are still shaking hands are to give up.
	bridging    context.Context
	endBridging context.CancelFunc

	// stopping is the master's word that all workers are to leave soon; nil alone.
	stopping *atomic.Uint32
	handOver handOver
	// outOfBand counts the beginnings and ends of the hook: while it runs it is odd.
	outOfBand  atomic.Uint64
	draining   atomic.Bool
	drainBegun chan struct{} // closed when draining becomes true
	idleGone   chan struct{} // closed when the reactor has then let those go that nothing is served of
	drained    chan struct{} // closed when no client is left after that
	drainOnce  sync.Once
	emptyOnce  sync.Once
	finished   chan struct{} // closed when the reactor's goroutine has ended
	finishOnce sync.Once
	reactorErr error
	onShutdown struct {
		sync.Mutex
		list []func()
	}
}

// NewServer starts the reactor and the pool; Serve brings the connections. The
// caller ends it with Shutdown or Close.
func NewServer(options Options) (*Server, error) {
	if options.Handler == nil {
		options.Handler = http.DefaultServeMux
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	if options.BaseContext == nil {
		options.BaseContext = context.Background()
	}
	options.Limits = options.Limits.WithDefaults()
	s := &Server{
		options:    options,
		sockets:    options.sockets,
		readBuffer: make([]byte, readSize),
		drainBegun: make(chan struct{}), idleGone: make(chan struct{}),
		drained:  make(chan struct{}),
		finished: make(chan struct{}),
		blocks:   blockBudget{total: options.BodyMemoryTotal},
		shadow: &http.Server{Handler: options.Handler, IdleTimeout: options.Timeouts.Idle,
			ReadHeaderTimeout: options.Timeouts.Head, MaxHeaderBytes: options.Limits.Head,
			// http.TimeoutHandler logs through it.
			ErrorLog: slog.NewLogLogger(options.Logger.Handler(), slog.LevelWarn)},
	}
	if s.sockets == nil {
		s.sockets = kernelSockets()
	}
	if options.Slot != nil {
		s.stats = &statsIn(options.Slot).counters
	} else {
		s.stats = new(counters)
	}
	s.gate.siblings = newSiblings(&options)
	if options.Page != nil {
		s.stopping = &options.Page.Global().Stopping
	}
	s.bridging, s.endBridging = context.WithCancel(context.Background())
	s.overload.init(&options)
	if options.Timeouts.AdvertisedIdle >= time.Second && options.KeepAlive {
		s.aliveLine = "Keep-Alive: timeout=" + strconv.Itoa(int(options.Timeouts.AdvertisedIdle/time.Second)) + "\r\n"
	}
	s.usualEnd = aliveFields(s.aliveLine) + "\r\n"
	var err error
	s.reactor, err = reactor.New[Client](reactorSide{s}, reactor.Options{
		Poller:         options.poller,
		ReleaseTimeout: options.Timeouts.Idle,
		Tick:           options.Timeouts.tick(),
		Patience:       s.patience,
	})
	if err != nil {
		return nil, err
	}
	poolOptions := threadpool.Options{Min: options.MinThreads, Max: options.MaxThreads, OnPanic: s.placePanicked}
	if options.OutOfBand != nil {
		poolOptions.OnIdle = s.runOutOfBand
	}
	if options.Slot != nil {
		options.Slot.Places.Store(int64(options.MaxThreads))
		poolOptions.Busy = &options.Slot.Busy
	}
	s.pool, err = threadpool.New(poolOptions, s.process)
	if err != nil {
		return nil, err
	}
	s.floor = heapFloor(options.HeapFloor, options.MemoryLimitShared)
	s.log = newEventLog(options.Logger, &s.stats.droppedLines)
	go s.runReactor()
	return s, nil
}

func (s *Server) runReactor() {
	defer close(s.finished)
	if s.reactorErr = s.reactor.Run(); s.reactorErr != nil {
		s.options.Logger.Error("the reactor has ended", "err", s.reactorErr)
	}
}

// placePanicked: a panic that no handler caused, so one of ours.
func (s *Server) placePanicked(v any, stack []byte) {
	s.stats.panics.Add(1)
	s.log.error(limitKey{event: "place panic"}, "internal error on a pool goroutine", "panic", panicValue(v), "stack", string(stack))
}

// setState is the one place where a client's state changes.
func (s *Server) setState(c *Client, state State, now int64) {
	c.state = state
	c.since = now
}

// isLastRequest: the connection has served as many requests as it may.
func (s *Server) isLastRequest(c *Client) bool {
	return s.options.MaxKeepAlive > 0 && int(c.served) >= s.options.MaxKeepAlive
}

// sendContinue sends 100 Continue to a client that waits for it before it
// sends its body. In buffered mode that is at the end of the head: the handler
// runs only once the body is here.
func (s *Server) sendContinue(sl *slot) error {
	p := sl.Value.pending
	if p == nil || p.x == nil || !p.x.body.expectContinue {
		return nil
	}
	p.x.body.expectContinue = false
	if p.x.body.arrived > 0 {
		return nil // it did not wait (RFC 9110 section 10.1.1)
	}
	const line = "HTTP/1.1 100 Continue\r\n\r\n"
	n, err := s.sockets.send(sl.FD(), []byte(line), nil)
	s.stats.bytesOut.Add(uint64(n))
	if err == nil && n < len(line) {
		err = errWouldBlock // a socket without room for 25 bytes: give up on it
	}
	return err
}

// close ends a client that the reactor owns and closes its descriptor.
func (s *Server) close(sl *slot) {
	c := &sl.Value
	if x := c.exchange.Load(); x != nil {
		x.abandon()
	}
	s.discard(c)
	fd, bridged := sl.FD(), c.bridged
	s.setState(c, StateClosed, s.reactor.BatchTime())
	s.reactor.Remove(sl)
	_ = s.sockets.close(fd) // whatever it says, the descriptor is gone
	if bridged != nil {
		s.bridgeClosed(bridged)
	}
	s.checkDrained()
}

// checkDrained notes that nothing is left of a server that leaves: no client,
// and nowhere that another could come from. It is the reactor's.
func (s *Server) checkDrained() {
	if s.closedListeners && s.reactor.Size() == 0 && s.arriving.Load() == 0 {
		s.emptyOnce.Do(func() { close(s.drained) })
	}
}

// RegisterOnShutdown adds a function that Shutdown calls, in a goroutine of its
// own.
func (s *Server) RegisterOnShutdown(f func()) {
	s.onShutdown.Lock()
	defer s.onShutdown.Unlock()
	s.onShutdown.list = append(s.onShutdown.list, f)
}

// Shutdown accepts who has connected already, and nobody after that, lets idle
// connections go, finishes what runs, and ends the server. When the context ends
// first its error is returned, and what runs goes on.
func (s *Server) Shutdown(ctx context.Context) error {
	s.beginDrain(true)
	select {
	case <-s.drained:
	case <-s.finished:
	case <-ctx.Done():
		if !s.isIdle() {
			return ctx.Err()
		}
	}
	s.end()
	return nil
}

// isIdle reports whether there is nothing that a shutdown would have to wait
// for: then it succeeds even if its context has ended, as net/http's does.
func (s *Server) isIdle() bool {
	select {
	case <-s.idleGone:
	case <-s.finished:
	}
	select {
	case <-s.drained:
	case <-s.finished:
	default:
		return false
	}
	return true
}

// beginDrain closes the listeners and tells every waiting client. Who is in a
// listener's queue is taken in before with rest, else left to whoever has the
// same socket.
func (s *Server) beginDrain(rest bool) {
	s.drainOnce.Do(func() {
		s.draining.Store(true)
		close(s.drainBegun)
		time.AfterFunc(newcomerGrace, s.endBridging)
		s.closeListeners(rest)
		// After that, as in net/http: who is told must not find the server still
		// taking connections.
		s.onShutdown.Lock()
		for _, f := range s.onShutdown.list {
			go f()
		}
		s.onShutdown.Unlock()
		_ = s.reactor.Do(func() {
			s.closedListeners = true
			s.drainWaiting()
			close(s.idleGone)
		})
	})
}

// drainWaiting lets go of the clients that wait between two requests. Their
// sockets are looked at first: a request that is here already is served.
func (s *Server) drainWaiting() {
	var waiting []*slot
	s.reactor.Each(func(sl *slot, owned bool) {
		if !owned && (sl.Value.state == StateIdle || sl.Value.state == StateNew || s.mayPart(&sl.Value)) {
			waiting = append(waiting, sl)
		}
	})
	for _, sl := range waiting {
		if s.part(sl) || s.keepsFor(&sl.Value) { // it goes, now or later
			continue
		}
		s.letGoUnlessAsking(sl)
	}
	s.checkDrained()
}

// letGoUnlessAsking ends a client that waits between two requests, unless one is
// here already.
func (s *Server) letGoUnlessAsking(sl *slot) {
	generation := sl.Generation()
	s.read(sl)
	if sl.Generation() == generation && s.isWaiting(sl) && !sl.Value.inFlight() {
		s.letGo(sl)
	}
}

// newcomerGrace is how long a client whose connection was accepted just before
// the end has to send its request: it cannot know.
const newcomerGrace = time.Second

// letGo ends a client that waits between two requests.
func (s *Server) letGo(sl *slot) {
	c := &sl.Value
	if now := s.reactor.Now(); c.state == StateNew && now-c.since < int64(newcomerGrace) {
		s.reactor.SetDeadline(sl, s.deadlineOf(c, now))
		return
	}
	s.startLingering(sl)
}

// end stops pool, reactor and log once no client is left. Only goroutines of
// hijacked connections may still run; nobody waits for them, and the pool frees
// itself when the last has ended.
func (s *Server) end() {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.pool.Shutdown(over)
	s.finishOnce.Do(func() {
		s.reactor.Stop()
		<-s.finished
		s.endBridging()
		s.date.stop()
		s.floor = nil
		s.log.close()
	})
}

// Close ends everything at once: listeners and connections are closed, the
// contexts of running requests are cancelled. Handlers that do not heed them
// go on without a connection; Close does not wait for them. Nothing is sent any
// more when it has returned, so a handler that calls it answers nobody. The
// reactor's own goroutine must not call it.
func (s *Server) Close() error {
	s.endBridging()
	s.beginDrain(false)
	closed := make(chan struct{})
	if err := s.reactor.Do(func() { s.closeAll(); close(closed) }); errors.Is(err, reactor.ErrStopped) {
		return nil
	}
	select {
	case <-closed:
	case <-s.finished:
	}
	go func() { // ends when the last handler has returned
		<-s.drained
		s.end()
	}()
	return nil
}

func (s *Server) closeAll() {
	s.closed = true
	var waiting []*slot
	s.reactor.Each(func(sl *slot, owned bool) {
		if !owned {
			waiting = append(waiting, sl)
			return
		}
		// The socket first: a handler that heeds its context could return
		// before, and its answer would look whole.
		_ = s.sockets.shutdown(sl.FD()) // its owner notices and hands it back
		if x := sl.Value.exchange.Load(); x != nil {
			x.context.cancel(context.Canceled)
		}
	})
	for _, sl := range waiting {
		if p := sl.Value.pending; p != nil && p.last != nil && !p.out.isEmpty() {
			s.cutShort(p.last)
		}
		s.close(sl)
	}
	s.checkDrained()
}

// listenerOf is where a client came from.
func (s *Server) listenerOf(c *Client) *listener {
	return s.gate.byIndex(int(c.listener))
}

var errServerClosed = http.ErrServerClosed
