package catamount

import (
	"context"
	"net/http"
	"os"
	"sync"

	"github.com/catamount-server/catamount/cluster"
	"github.com/catamount-server/catamount/internal/page"
	"github.com/catamount-server/catamount/internal/preload"
)

// App is an application for Main and Run: how its handler is made, and what is
// to happen around that. The hooks are Puma's; each may be nil.
type App struct {
	// Preload, if not nil, runs once per phase, in a process of its own that ends
	// when it returns. What it puts into the Preloader all workers of the phase
	// share, read-only and without a copy: Worker.Preloaded has it. Its error, or
	// its panic, ends the start or the restart, and nothing that serves notices.
	// In single mode it runs in the one process there is, and its context ends
	// when Config.PreloadTimeout is over or the server is told to stop.
	Preload func(context.Context, *Preloader) error
	// Handler makes the handler, once in each worker, before the worker accepts
	// connections. Its error means that the worker cannot boot.
	Handler func(*Worker) (http.Handler, error)

	// BeforeFork runs in the master once, before it starts its first worker; and
	// in the new program of a hot restart as well, because what it did in the one
	// before is gone with that.
	BeforeFork func()
	// BeforeWorkerBoot runs in each worker before Handler.
	BeforeWorkerBoot func(*Worker)
	// AfterBooted runs in the master when all workers serve, at the start and
	// after each restart; in single mode when the server listens.
	AfterBooted func()
	// BeforeWorkerShutdown runs in a worker after its last request.
	BeforeWorkerShutdown func(*Worker)
	// AfterWorkerShutdown runs in the master when a worker has ended, however it
	// did. Hooks that run in the master must be quick: meanwhile nobody watches
	// the workers. One that panics is logged and otherwise ignored.
	AfterWorkerShutdown func(WorkerExit)
	// BeforeRestart runs in the master before a restart begins, phased or hot.
	BeforeRestart func()
	// OutOfBand runs in a worker, or in single mode, when requests have been
	// served and none is left to serve: the moment for work that would disturb
	// them, such as a collection of garbage. The worker accepts nobody meanwhile,
	// and requests on the connections that it has wait: it is for milliseconds. One
	// that lasts for Config.WorkerTimeout counts as a worker that hangs.
	OutOfBand func(*Worker)
}

// WorkerExit is the end of a worker, as App.AfterWorkerShutdown is told. Package
// cluster has its fields: Index, PID, Phase, Status, Reason, Expected, Memory.
type WorkerExit = cluster.Exit

// Preloader collects what all workers of a phase share, in sections of which one
// is written after the other; see docs/preload.md. Besides PreloadSlice there are
//
//	Put(name string, p []byte) error
//	Create(name string) (io.WriteCloser, error)   // ends with Close
//	Table(name string) (*TableBuilder, error)     // Put(key string, value []byte) error, then Close
//	Dir(name string, fsys fs.FS) error
type Preloader = preload.Builder

// Preloaded is what App.Preload has put together, mapped read-only. Besides
// PreloadedSlice there are
//
//	Bytes(name string) ([]byte, error)
//	String(name string) (string, error)
//	Table(name string) (*Table, error)   // Get(key string) (value string, ok bool), Len, All
//	FS(name string) (*FS, error)         // an fs.FS; Contents(name string) (string, error)
//	Names() []string
//	Size() int64
//	Verify() error                       // reads everything and compares checksums
//
// An error is that there is no such section, or that it is of another kind. A nil
// Preloaded has no sections. What is returned must not be written to.
type Preloaded = preload.Data

// PreloadSlice puts a slice of a type without pointers into the Preloader, as
// the section of that name: of numbers, bools, arrays and structs of them. It is
// an error if T has a pointer, which the error names, if there is a section of
// that name, or if another one is still open.
func PreloadSlice[T any](p *Preloader, name string, values []T) error {
	return preload.PutSlice(p, name, values)
}

// PreloadedSlice returns what PreloadSlice has put there, without a copy; an
// error if there is no such section, or one of another type. The slice must not
// be written to: that is a fault which ends the process.
func PreloadedSlice[T any](p *Preloaded, name string) ([]T, error) { return preload.Slice[T](p, name) }

// Counter counts for the whole application: one number for all its workers,
// past and present. It never goes back, not even when a worker is killed or the
// master restarts. Add(n uint64) counts, Value() uint64 tells.
type Counter = page.Counter

// Limiter allows so many events a second for all workers together. Allow() bool
// asks for one event, AllowN(n int) bool for n or none.
type Limiter = page.Limiter

// Worker is what the application sees of the process that serves it.
type Worker struct {
	index, phase int
	page         *page.Page
	preloaded    *preload.Data
	context      context.Context

	mu      sync.Mutex
	onDrain []func(context.Context)
}

// Index of the worker, from 0. No two workers that live have the same. One
// that replaces another has a different index, because it serves before the
// other leaves: so of four workers one may have 4. It is 0 in single mode.
func (w *Worker) Index() int { return w.index }

// Phase is the number of the restart that this worker belongs to; 0 from the
// start, and in single mode. Restarts that failed have numbers, too.
func (w *Worker) Phase() int { return w.phase }

// PID of the worker's process.
func (w *Worker) PID() int { return os.Getpid() }

// Counter returns the counter with that name, which all workers share. A name
// has 1 to 96 bytes of UTF-8 without control characters, and there is room for
// 1024 names of counters and limiters together; it is an error to go beyond, or
// to ask for a limiter's name.
func (w *Worker) Counter(name string) (*Counter, error) { return w.page.Counter(name) }

// Limiter returns the rate limiter with that name, which all workers share: it
// allows perSecond events a second on average, more than 0 and at most 1e6, and
// burst at once, 1 at least. What takes more than a year to fill up is refused.
// Names are as for Counter.
func (w *Worker) Limiter(name string, perSecond float64, burst int) (*Limiter, error) {
	return w.page.Limiter(name, perSecond, burst)
}

// Preloaded is what App.Preload has prepared; nil without it.
func (w *Worker) Preloaded() *Preloaded { return w.preloaded }

// Context is done when the worker begins to drain: for goroutines of the
// application's own, and for long-lived connections.
func (w *Worker) Context() context.Context { return w.context }

// OnDrain adds a function to be called, in a goroutine of its own, when the
// worker begins to drain: to tell WebSockets and streams that they should
// reconnect. Its context ends when the time for that (Config.StreamGrace) is
// over. It must be called before App.Handler returns.
func (w *Worker) OnDrain(f func(context.Context)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.onDrain = append(w.onDrain, f)
}
