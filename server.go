package catamount

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/catamount-server/catamount/parser"
	"github.com/catamount-server/catamount/worker"
)

// Server serves an http.Handler in one process. It has the shape of
// http.Server, and the zero value serves with safe defaults. Fields must not be
// changed once it serves.
//
// For every number, limit, rate and timeout 0 stands for the default, and a
// negative value turns a limit, a rate or a timeout off. MinThreads, MaxThreads,
// MaxFastInline, RetryAfter and TCPKeepAlive.Interval and Count cannot be
// negative. Serve and ListenAndServe return an error when a field makes no
// sense; Validate tells before.
type Server struct {
	// Addr is the TCP address of ListenAndServe; "" is ":http".
	Addr string
	// Handler serves the requests; nil is http.DefaultServeMux.
	Handler http.Handler
	// BaseContext returns the context that the requests of a listener derive
	// from; nil is context.Background.
	BaseContext func(net.Listener) context.Context
	// Logger is told of everything that goes wrong with a client or a handler;
	// nil is slog.Default.
	Logger *slog.Logger

	// MinThreads (default 0) places of the pool have a goroutine from the
	// start; MaxThreads (default 256) bounds how many requests are served at
	// once. Others wait, in order.
	MinThreads, MaxThreads int
	// QueueRequests: nil or true for the reactor, which buffers requests and
	// occupies a place only with whole ones; false for the blocking mode, in
	// which a place belongs to a connection, however slow it is, and accepting
	// waits while the pool is full. As in Puma, blocking connections serve one
	// request unless EnableKeepAlives says otherwise. Write new(false).
	QueueRequests *bool
	// EnableKeepAlives: connections may serve several requests; nil is the value
	// of QueueRequests.
	EnableKeepAlives *bool
	// MaxKeepAlive is the number of requests per connection; the last answer
	// announces the close. Default: no limit.
	MaxKeepAlive int
	// MaxFastInline is the number of requests of one connection that are served
	// in a row, default 32, and only such as have come already.
	MaxFastInline int

	// MaxBacklog, default off, is how many whole requests may wait for a place;
	// the next one is refused with 503. See docs/overload.md. In blocking mode
	// neither this nor MaxQueueWait has an effect: places wait for requests
	// there, and accepting waits for places.
	MaxBacklog int
	// MaxQueueWait, default off, is how long a whole request may wait for a
	// place; then it is refused with 503, also when no place ever becomes free.
	// At least 1 ms.
	MaxQueueWait time.Duration
	// RetryAfter, default 1 s, is what the 503 of the two limits above says in
	// Retry-After: whole seconds, rounded up.
	RetryAfter time.Duration
	// HandlerTimeout, default off, is how long a handler may run, from its
	// start. Then its request's context ends with context.DeadlineExceeded, and
	// if nothing of its answer was sent the client gets a 503 at once; what the
	// handler writes later fails with http.ErrHandlerTimeout. A handler that
	// does not return keeps its place, because goroutines cannot be ended from
	// outside; Shutdown does not wait for it. See docs/timeouts.md. At least
	// 1 ms.
	HandlerTimeout time.Duration

	// MaxHeaderBytes bounds a request's head, request line included; default
	// 114688 (112 KiB); 431.
	MaxHeaderBytes int
	// MaxBodyBytes bounds a request's body; default unlimited; 413.
	MaxBodyBytes int64
	// Limits has the finer ones; see parser.Limits for defaults and answers. Its
	// Head and Body give way to the two fields above where those are set.
	Limits parser.Limits
	// BodyMemory is how much of a body is kept in memory in any case (default
	// 114688 bytes). BodyMemoryTotal (default 67108864, at least 1 MiB; negative:
	// none) is what all bodies together may have in memory beyond that, each of
	// them at most a quarter of it and no more than it leaves to the others. What
	// is more goes to an unnamed file in BodyDirectory ("": os.TempDir).
	BodyMemory      int
	BodyMemoryTotal int64
	BodyDirectory   string
	// StreamRequest chooses requests that are not buffered: their handlers start
	// at the end of the head and read the body as it comes; 100 Continue is sent
	// when they first read. Reading and writing at the same time works. While such
	// a handler waits for its client it occupies no place of the pool. The function
	// sees the head of a request that has a body, must not read the body, and must
	// be quick: everybody waits for it. Nil: every request is buffered, so that no
	// slow client reaches a handler.
	//
	// BodyIdleTimeout, BodyMinRate (counted while the handler waits) and
	// ReadTimeout hold for streams too; ResponseController.SetReadDeadline replaces
	// them for its request.
	StreamRequest func(*http.Request) bool
	// OutputMemory is how much of an answer (default 262144 bytes) may wait in
	// memory for a slow reader, and OutputMemoryTotal (default 67108864) bounds
	// all answers together. What is more goes to an unnamed file in
	// BodyDirectory, at most OutputFile bytes an answer (default 67108864) and
	// OutputFileTotal for all (default 1073741824; negative OutputFile: no files).
	// Beyond that the handler's Write waits for its client.
	OutputMemory                int
	OutputMemoryTotal           int64
	OutputFile, OutputFileTotal int64
	// OnWriteFailure is told of each answer that did not reach its client, or not
	// all of it, after it was logged: one after the other, on a goroutine that
	// nobody else waits for.
	OnWriteFailure func(WriteFailure)
	// HeapFloor makes the garbage collector run less often while the heap is
	// small: it counts so many bytes (default 16777216) as if they were in use,
	// which lets as much garbage gather before a collection. They take no memory
	// themselves. Nothing is done when GOGC or a memory limit is set.
	HeapFloor int

	// FirstByteTimeout, default 30 s or ReadHeaderTimeout or ReadTimeout where
	// those are shorter: from accept to the first byte; then the connection is
	// closed quietly.
	FirstByteTimeout time.Duration
	// ReadHeaderTimeout, default 20 s: from the first byte of a request to the
	// end of its head, however the bytes trickle; 408.
	ReadHeaderTimeout time.Duration
	// ReadTimeout, default off: from the first byte of a request to the end of
	// its body; 408.
	ReadTimeout time.Duration
	// BodyIdleTimeout, default 30 s: without a byte of the body; 408.
	BodyIdleTimeout time.Duration
	// BodyMinRate, default 500 bytes per second: what a body must average once
	// BodyGrace, default 20 s, has passed; 408.
	BodyMinRate int
	BodyGrace   time.Duration
	// IdleTimeout, default 75 s: between two requests. Before an idle connection
	// is closed its socket is looked at once more.
	IdleTimeout time.Duration
	// AdvertisedIdle, default 65 s: what clients are told (Keep-Alive:
	// timeout=65). It must be shorter than IdleTimeout, so that a client who
	// keeps to it never sends into a closing connection.
	AdvertisedIdle time.Duration
	// WriteTimeout, default off: from when a handler starts until the socket has
	// taken its answer, as in http.Server: later writes fail with
	// os.ErrDeadlineExceeded and the connection is closed. A handler can change it
	// with ResponseController.SetWriteDeadline. WriteMinRate ends slow readers
	// without a limit on the handler's own time.
	WriteTimeout time.Duration
	// WriteMinRate, default 500 bytes per second: what a client must take, on
	// average, of an answer that waits for it, once WriteGrace, default 20 s,
	// has passed.
	WriteMinRate int
	WriteGrace   time.Duration
	// LingerTimeout, default 2 s: how long to read and discard after the last
	// answer, so that the client reads it rather than a reset.
	LingerTimeout time.Duration

	// TCPKeepAlive: probes that find peers which vanished while the connection
	// rests; default after 60 s, every 10 s, 5 times. Enable is not looked at; a
	// negative Idle turns probes off. Whole seconds, 32767 at most; Count is at
	// most 127.
	TCPKeepAlive net.KeepAliveConfig
	// TCPUserTimeout, default 2 min: how long bytes may remain unacknowledged
	// before the connection is given up (RFC 5482). The kernel counts the time in
	// which a living client has no room for more as well, so a short one cuts off
	// slow readers whatever WriteMinRate allows them. It also takes the place of
	// TCPKeepAlive.Count. Not on connections that speak MPTCP.
	TCPUserTimeout time.Duration

	// DisableGeneralOptionsHandler passes "OPTIONS *" to the Handler; otherwise
	// the server answers with 200 and no body.
	DisableGeneralOptionsHandler bool

	mu         sync.Mutex
	worker     *worker.Server
	closed     bool
	onShutdown []func()
}

// ListenAndServe listens on Addr and serves. It always returns an error; after
// Shutdown or Close that is ErrServerClosed.
func (s *Server) ListenAndServe() error {
	if _, err := s.start(); err != nil {
		return err
	}
	addr := s.Addr
	if addr == "" {
		addr = ":http"
	}
	// Not Go's default of multipath TCP: TCP_USER_TIMEOUT, which ends
	// connections to vanished peers, cannot be set on it.
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	l, err := config.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return err
	}
	return s.Serve(l)
}

// Serve accepts connections from l until Shutdown or Close, or until l is
// closed; it closes l. It may be called for several listeners. TCP and unix
// sockets are watched by the reactor itself; any other listener works too, at
// the price of two goroutines a connection.
func (s *Server) Serve(l net.Listener) error {
	w, err := s.start()
	if err != nil {
		l.Close()
		return err
	}
	base := context.Background()
	if s.BaseContext != nil {
		if base = s.BaseContext(l); base == nil {
			l.Close()
			return fmt.Errorf("catamount: Server.BaseContext: returned nil")
		}
	}
	return w.ServeContext(base, l)
}

// start makes the worker's server at the first call.
func (s *Server) start() (*worker.Server, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrServerClosed
	}
	if s.worker != nil {
		return s.worker, nil
	}
	options, err := s.options()
	if err != nil {
		return nil, err
	}
	w, err := worker.NewServer(options)
	if err != nil {
		return nil, err
	}
	for _, f := range s.onShutdown {
		w.RegisterOnShutdown(f)
	}
	s.worker = w
	return w, nil
}

// stop marks the server as closed and returns what has to end.
func (s *Server) stop() *worker.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return s.worker
}

// Shutdown stops accepting, lets idle connections go without resetting anyone,
// and waits for what runs. Connections that were accepted within the last second
// have the rest of it to send their first request. When ctx ends first, its error is returned and what
// runs goes on; Close ends it. Hijacked connections are not waited for.
func (s *Server) Shutdown(ctx context.Context) error {
	if w := s.stop(); w != nil {
		return w.Shutdown(ctx)
	}
	return nil
}

// letGo ends a server to which nobody has a reference any more: what runs is
// finished, and then its goroutines end.
func (s *Server) letGo() {
	go func() { _ = s.Shutdown(context.Background()) }()
}

// Close closes all listeners and connections at once and cancels the contexts
// of running requests, but does not wait for their handlers. It must not be
// called from StreamRequest.
func (s *Server) Close() error {
	if w := s.stop(); w != nil {
		return w.Close()
	}
	return nil
}

// RegisterOnShutdown adds a function for Shutdown and Close to call, each in a
// goroutine of its own: for telling hijacked connections.
func (s *Server) RegisterOnShutdown(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onShutdown = append(s.onShutdown, f)
	if s.worker != nil {
		s.worker.RegisterOnShutdown(f)
	}
}

// Stats returns a snapshot; it is zero before the server serves.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	w := s.worker
	s.mu.Unlock()
	if w == nil {
		return Stats{}
	}
	return w.Stats()
}
