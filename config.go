package catamount

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/catamount-server/catamount/cluster"
)

// AutoWorkers as the number of workers stands for one per processor.
const AutoWorkers = -1

// Config is everything that Main and Run have to know besides the application.
// The zero value serves in single mode on all addresses, port 9292. For
// durations and numbers 0 stands for the default and a negative value for none;
// where there must be some it is an error.
type Config struct {
	// Binds are what to listen on: tcp://host:port or unix:///path. The default
	// is port 9292 of DefaultHost.
	Binds []string
	// DefaultHost is the address of the default bind, and of ports that the flag
	// -p or the variable PORT gives; default 0.0.0.0.
	DefaultHost string
	// Workers is how many processes serve; 0 is single mode, in which there is no
	// master; AutoWorkers one for each processor, within MinWorkers and MaxWorkers.
	// At most 127.
	Workers int
	// MinWorkers (default 1) and MaxWorkers (default twice Workers, but 8 at least
	// and 127 at most) bound what the signals TTIN and TTOU can make of it.
	// Workers must lie between them.
	MinWorkers, MaxWorkers int
	// Server has the threads, limits and timeouts of each worker. Its Addr,
	// Handler and Logger have no meaning here. Nil is new(Server).
	Server *Server

	// Logger takes the log of all processes; nil is text on a terminal, else
	// JSON, on the standard error.
	Logger *slog.Logger
	// Quiet: no banner, and of the log only warnings and errors.
	Quiet bool
	// LogRequests logs each request.
	LogRequests bool

	// Tag appears in the processes' titles.
	Tag string
	// Directory is where the processes run; "" is where the first was started. A
	// restart looks it up again, so that it may be a symbolic link. Relative paths
	// in Binds, Pidfile and StateFile do not depend on it: they begin where the
	// first process was started.
	Directory string
	// Pidfile and StateFile are written at the start and removed at the end: the
	// master's pid, and what is needed to talk to it. A second server that is
	// given the file of one that runs is refused.
	Pidfile, StateFile string

	// WorkerCheckInterval (default 5 s, at least 1 ms) is how often workers report
	// to the master.
	WorkerCheckInterval time.Duration
	// WorkerTimeout (default 60 s) is how long a worker's reactor or pool may
	// stand still before it is asked for its stacks, killed and replaced. A slow
	// handler is no reason. It must be longer than WorkerCheckInterval.
	WorkerTimeout time.Duration
	// WorkerBootTimeout (default 60 s) is how long a worker may take to serve.
	WorkerBootTimeout time.Duration
	// WorkerShutdownTimeout (default 30 s) is how long a worker has to finish what
	// it serves before it is killed.
	WorkerShutdownTimeout time.Duration
	// PreloadTimeout (default 10 min) is how long App.Preload may take before its
	// process is killed; in single mode, before its context ends.
	PreloadTimeout time.Duration
	// MaxBootFailures (default 3) is how many workers of a new phase may fail to
	// boot before a restart is given up.
	MaxBootFailures int
	// ShutdownDelay (default 0) is how long to go on accepting after TERM, with
	// Connection: close in every answer, for balancers that have not heard yet. A
	// second TERM ends it. Single mode has no such delay.
	ShutdownDelay time.Duration
	// StreamGrace (default 10 s, or a third of WorkerShutdownTimeout where that is
	// less) is how long hijacked connections and streams may go on in a worker
	// that drains. At most WorkerShutdownTimeout.
	StreamGrace time.Duration
	// OrphanGrace (default 10 s) is how long a worker whose master is gone goes on
	// with what it serves.
	OrphanGrace time.Duration
	// CullOldest: TTOU ends the oldest worker instead of the youngest.
	CullOldest bool

	// MaxRequests, MaxAge and MaxMemory (bytes of private memory) end a worker
	// that has exceeded one of them, one at a time, its replacement first. All are
	// off by default.
	MaxRequests int64
	MaxAge      time.Duration
	MaxMemory   int64
	// RecycleJitter (default 0.1: up to a tenth more) is how much of those limits
	// is added at random, so that workers which started together do not end
	// together. Above 0 and at most 1; it cannot be turned off.
	RecycleJitter float64
}

// ConfigError is a field of a Config that makes no sense.
type ConfigError struct {
	Field  string
	Reason error
}

// Error names the field and the reason.
func (e *ConfigError) Error() string {
	return fmt.Sprintf("catamount: Config.%s: %v", e.Field, e.Reason)
}

// Unwrap returns the reason.
func (e *ConfigError) Unwrap() error { return e.Reason }

// Validate checks the fields. Its error is a *ConfigError, which names the field
// and the reason.
func (c *Config) Validate() error {
	_, err := c.resolve()
	return err
}

// resolved is a Config whose defaults are filled in.
type resolved struct {
	Config
	server  *Server
	binds   []cluster.Bind
	workers int
}

func (c *Config) resolve() (*resolved, error) {
	r := &resolved{Config: *c, server: c.Server, workers: c.Workers}
	if r.server == nil {
		r.server = new(Server)
	}
	r.MinWorkers = orDefault(c.MinWorkers, 1)
	if r.workers == AutoWorkers {
		// In a worker there are fewer processors than in its master, and there the
		// number must not break the bounds either.
		r.workers = min(max(runtime.GOMAXPROCS(0), r.MinWorkers), orDefault(c.MaxWorkers, cluster.MostWorkers))
	}
	r.MaxWorkers = orDefault(c.MaxWorkers, min(max(2*r.workers, 8), cluster.MostWorkers))
	r.WorkerCheckInterval = orDefault(c.WorkerCheckInterval, 5*time.Second)
	r.WorkerTimeout = timeout(c.WorkerTimeout, time.Minute)
	r.WorkerBootTimeout = timeout(c.WorkerBootTimeout, time.Minute)
	r.WorkerShutdownTimeout = timeout(c.WorkerShutdownTimeout, 30*time.Second)
	r.PreloadTimeout = timeout(c.PreloadTimeout, 10*time.Minute)
	r.MaxBootFailures = orDefault(c.MaxBootFailures, 3)
	grace := 10 * time.Second
	if r.WorkerShutdownTimeout > 0 {
		grace = min(grace, r.WorkerShutdownTimeout/3)
	}
	r.StreamGrace = timeout(c.StreamGrace, grace)
	r.OrphanGrace = timeout(c.OrphanGrace, 10*time.Second)
	if c.RecycleJitter == 0 {
		r.RecycleJitter = 0.1
	}
	r.DefaultHost = c.DefaultHost
	if r.DefaultHost == "" {
		r.DefaultHost = "0.0.0.0"
	}
	if err := r.check(c); err != nil {
		return nil, err
	}
	if err := r.parseBinds(); err != nil {
		return nil, err
	}
	if err := r.server.Validate(); err != nil {
		return nil, &ConfigError{"Server", err}
	}
	return r, nil
}

func (r *resolved) parseBinds() error {
	texts := r.Binds
	if len(texts) == 0 {
		texts = []string{cluster.TCPBind(r.DefaultHost, "9292").String()}
	}
	for _, text := range texts {
		bind, err := cluster.ParseBind(text)
		if err == nil {
			bind, err = fromHere(bind)
		}
		if err != nil {
			return &ConfigError{"Binds", fmt.Errorf("%q: %w", text, err)}
		}
		r.binds = append(r.binds, bind)
	}
	return nil
}

// fromHere makes the path of a socket absolute: where the process runs later,
// which Directory says, must not matter.
func fromHere(b cluster.Bind) (cluster.Bind, error) {
	if b.Network != "unix" || strings.HasPrefix(b.Address, "@") || filepath.IsAbs(b.Address) {
		return b, nil
	}
	path, err := filepath.Abs(b.Address)
	if err != nil {
		return b, err
	}
	b.Address = path
	return cluster.ParseBind(b.String()) // it may be too long now
}

func (r *resolved) check(c *Config) error {
	wrong := func(field, format string, args ...any) error {
		return &ConfigError{field, fmt.Errorf(format, args...)}
	}
	switch {
	case c.Workers < AutoWorkers:
		return wrong("Workers", "%d is negative", c.Workers)
	case r.workers > cluster.MostWorkers:
		return wrong("Workers", "%d is more than %d", r.workers, cluster.MostWorkers)
	case r.MaxWorkers > cluster.MostWorkers:
		return wrong("MaxWorkers", "%d is more than %d", r.MaxWorkers, cluster.MostWorkers)
	case r.MaxWorkers < 1:
		return wrong("MaxWorkers", "%d is less than 1", c.MaxWorkers)
	case r.MinWorkers < 1:
		return wrong("MinWorkers", "%d is less than 1", c.MinWorkers)
	case r.workers > 0 && r.MaxWorkers < r.workers:
		return wrong("MaxWorkers", "%d is less than Workers (%d)", c.MaxWorkers, r.workers)
	case r.workers > 0 && r.MinWorkers > r.workers:
		return wrong("MinWorkers", "%d is more than Workers (%d)", c.MinWorkers, r.workers)
	case r.WorkerCheckInterval < time.Millisecond:
		return wrong("WorkerCheckInterval", "%v is less than 1 ms", c.WorkerCheckInterval)
	case r.WorkerTimeout > 0 && r.WorkerTimeout <= r.WorkerCheckInterval:
		return wrong("WorkerTimeout", "%v must be longer than WorkerCheckInterval (%v)", r.WorkerTimeout, r.WorkerCheckInterval)
	case r.MaxBootFailures < 1:
		return wrong("MaxBootFailures", "%d is less than 1", c.MaxBootFailures)
	case r.WorkerShutdownTimeout > 0 && c.StreamGrace > r.WorkerShutdownTimeout:
		return wrong("StreamGrace", "%v is longer than WorkerShutdownTimeout (%v)", c.StreamGrace, r.WorkerShutdownTimeout)
	case c.ShutdownDelay < 0:
		return wrong("ShutdownDelay", "%v is negative", c.ShutdownDelay)
	case math.IsNaN(r.RecycleJitter) || r.RecycleJitter <= 0 || r.RecycleJitter > 1:
		return wrong("RecycleJitter", "%v is not above 0 and at most 1", c.RecycleJitter)
	}
	return nil
}

// errNoHandler: an App cannot do without.
var errNoHandler = errors.New("catamount: App.Handler is nil")
