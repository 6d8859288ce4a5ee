package worker

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/catamount-server/catamount/internal/page"
	"github.com/catamount-server/catamount/parser"
	"github.com/catamount-server/catamount/reactor"
)

// Options of a Server, complete: the root package fills in the defaults. A
// timeout, rate or limit of 0 is off unless its comment says otherwise.
type Options struct {
	// Handler serves the requests; nil means http.DefaultServeMux.
	Handler http.Handler
	// Logger takes what is worth telling; nil discards it.
	Logger *slog.Logger

	// MinThreads and MaxThreads bound the pool, in places.
	MinThreads, MaxThreads int
	// QueueRequests: the reactor buffers requests and hands over whole ones.
	// Without it a pool goroutine owns a connection and waits for its bytes,
	// and accepting waits until the pool is not full (Puma's queue_requests).
	QueueRequests bool
	// KeepAlive: connections may serve more than one request.
	KeepAlive bool
	// MaxKeepAlive is the number of requests per connection; the last answer
	// says Connection: close (Puma's max_keep_alive).
	MaxKeepAlive int
	// MaxFastInline is the number of requests of one client that are served in
	// a row while others wait, and only such as have come already.
	MaxFastInline int

	// MaxBacklog is how many whole requests may wait for a place; the next one
	// is refused with 503. Not in blocking mode. 0: no limit.
	MaxBacklog int
	// MaxQueueWait is how long a whole request may wait for a place; then it is
	// refused with 503. Not in blocking mode. 0: no limit.
	MaxQueueWait time.Duration
	// RetryAfter is what such a 503 tells the client in Retry-After, in whole
	// seconds, rounded up, and at least 1.
	RetryAfter time.Duration

	// HandlerTimeout is how long a handler may run; then its request's context
	// ends, and if nothing of the answer was sent the client gets a 503. The
	// handler goes on and keeps its place until it returns.
	HandlerTimeout time.Duration

	// Limits bound what the parser accepts.
	Limits parser.Limits
	// BodyMemory is how many bytes of a request body are kept in memory whatever
	// others need.
	BodyMemory int
	// BodyMemoryTotal is how many bytes all bodies together may have in blocks of
	// 256 KiB beyond that, each at most a quarter of it and no more than it leaves
	// to the others. The rest goes to an unlinked file in BodyDirectory.
	BodyMemoryTotal int64
	// BodyDirectory is where large bodies go; "" is os.TempDir.
	BodyDirectory string
	// OutputMemory is how many bytes of an answer may wait in memory for a slow
	// reader before the handler's Write waits for it.
	OutputMemory int
	// OutputMemoryTotal bounds what all answers together have in memory.
	OutputMemoryTotal int64
	// OutputFile is how many bytes of an answer, beyond what memory takes, may
	// wait in an unnamed file in BodyDirectory; OutputFileTotal bounds all of
	// them together.
	OutputFile, OutputFileTotal int64
	// HeapFloor is how many bytes the garbage collector is to count besides the
	// live heap, see heapFloor.
	HeapFloor int
	// MemoryLimitShared: the memory limit (GOMEMLIMIT) is not the user's but this
	// process's share of what a master found, and no reason to leave the floor
	// out, if it is much larger.
	MemoryLimitShared bool

	// OnWriteFailure is told of answers that did not reach their clients, one
	// after the other, on the log's goroutine. When the log does not keep up some
	// may be left out, and are counted with the log lines.
	OnWriteFailure func(WriteFailure)

	// OnRequest is told of each request that the application has served, by the
	// goroutine that has served it: it must be quick, and may not keep the
	// record's address. Nil: nothing is recorded.
	OnRequest func(*AccessRecord)
	// OutOfBand is called after a request when no other one runs or waits.
	// Meanwhile no connections are accepted, and requests on those that there are
	// wait: it is for work of milliseconds that would disturb them.
	OutOfBand func()

	Timeouts Timeouts
	Liveness Liveness

	// StreamRequest chooses, by its head, a request whose handler starts before
	// its body is here and reads it as it comes; nil: none. It is called on the
	// reactor's goroutine, for requests that have a body.
	StreamRequest func(*http.Request) bool
	// AppOptions: OPTIONS * goes to the handler instead of being answered by the
	// server.
	AppOptions bool

	// BaseContext is the context that the requests' contexts derive from.
	BaseContext context.Context

	// Page is the memory shared with siblings, Index is this worker among them
	// and Slot its part of the page; nil and 0 for a server that is alone. The
	// page stays mapped for as long as the process lives.
	Page  *page.Page
	Slot  *page.Slot
	Index int

	// poller and sockets replace the kernel in tests.
	poller  reactor.Poller
	sockets *sockets
}

// Timeouts of a connection. Each stands for one phase; docs/timeouts.md has
// the picture. All are absolute where a trickle of bytes could stretch them.
type Timeouts struct {
	// FirstByte: from accept to the first byte. Closed quietly.
	FirstByte time.Duration
	// Head: from a request's first byte to the end of its head, however the
	// bytes trickle. Answered with 408.
	Head time.Duration
	// Request: from a request's first byte to the end of its body. 408.
	Request time.Duration
	// BodyIdle: between two reads of a body. 408.
	BodyIdle time.Duration
	// BodyMinRate: bytes per second that a body must average once BodyGrace has
	// passed. 408.
	BodyMinRate int
	BodyGrace   time.Duration
	// Idle: between two requests on a connection. Closed quietly, after one
	// more look at the socket.
	Idle time.Duration
	// AdvertisedIdle is what clients are told (Keep-Alive: timeout=). Shorter
	// than Idle, so that a client who keeps to it never meets a closing
	// connection.
	AdvertisedIdle time.Duration
	// Write: from when a handler starts until its answer has been sent.
	Write time.Duration
	// WriteMinRate: bytes per second that a client must take, on average, while
	// bytes wait for it, once WriteGrace has passed.
	WriteMinRate int
	WriteGrace   time.Duration
	// Linger: how long to read and discard after the last answer of a
	// connection, so that the client reads the answer rather than a reset.
	Linger time.Duration
}

// tick chooses the precision of the reactor's deadlines: a sixteenth of the
// shortest timeout; the reactor keeps it between 1 and 128 ms.
func (t *Timeouts) tick() time.Duration {
	shortest := 16 * time.Hour
	for _, d := range []time.Duration{t.FirstByte, t.Head, t.Request, t.BodyIdle, t.BodyGrace, t.Idle, t.Write, t.WriteGrace, t.Linger} {
		if d > 0 {
			shortest = min(shortest, d)
		}
	}
	return shortest / 16
}

func (o *Options) bodyDirectory() string {
	if o.BodyDirectory != "" {
		return o.BodyDirectory
	}
	return os.TempDir()
}
