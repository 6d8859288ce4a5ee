package cluster

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/catamount-server/catamount/internal/page"
	"github.com/catamount-server/catamount/worker"
)

// Culling chooses which worker goes when there are too many.
type Culling string

const (
	// Youngest is the worker that was started last, Puma's choice: the older
	// ones have warmer caches.
	Youngest Culling = "youngest"
	// Oldest is the worker that was started first.
	Oldest Culling = "oldest"
)

// Options are what a master needs to know. Zero values mean the defaults given
// with each field.
type Options struct {
	// Logger gets what happens, with the attributes worker (the index), pid and
	// phase. Nil: nothing is logged.
	Logger *slog.Logger

	// Workers is how many workers serve, 1 at least. It can be changed later
	// (Scale, TTIN, TTOU) between MinWorkers (1) and MaxWorkers (twice Workers,
	// and 8 at least); no more than MostWorkers.
	Workers, MinWorkers, MaxWorkers int
	// Binds are the addresses to listen on, one at least.
	Binds []Bind

	// Path is the program that is started. A relative one is looked up in
	// Directory; symbolic links are followed anew with each restart. Default: as
	// Argv[0] names it.
	Path string
	// Argv is the program's command line as it was before anybody put a title
	// in the place of its first word. Default: os.Args.
	Argv []string
	// Env is the environment of workers. Default: this process's.
	Env []string
	// Directory is where workers run; symbolic links in it are followed anew
	// with each restart. Default: where the master runs.
	Directory string
	// Tag stands in the titles of processes.
	Tag string
	// State is the value of StateVariable, which the caller takes out of the
	// environment: what the program that ran before in this process has left
	// with a hot restart.
	State string
	// Files are paths that the next program of a hot restart is told of
	// (FilesBefore): what it does not need any more it can remove.
	Files []string

	// Signals is where the caller has Signals sent already, with room for a few,
	// so that none is lost that comes before New. They still go there when Run
	// has ended. Nil: they are listened to from New to the end of Run.
	Signals chan os.Signal

	// Preload: each phase begins with a process that prepares the memory that
	// its workers share (worker.RolePreload), PreloadTimeout (5 minutes) at most.
	Preload        bool
	PreloadTimeout time.Duration
	// StatsLayout is what workers keep in their slots of the shared page.
	StatsLayout page.Layout

	// CheckInterval is how often a worker has to give a sign of life, 5 s.
	CheckInterval time.Duration
	// WorkerTimeout is after how long without one a worker is asked for its
	// stacks and, 5 s later, killed: 60 s. It must exceed CheckInterval.
	WorkerTimeout time.Duration
	// BootTimeout is the same for a worker that does not serve yet, 60 s.
	BootTimeout time.Duration
	// ShutdownTimeout is how long a worker that was told to leave may take
	// until it is killed, 30 s.
	ShutdownTimeout time.Duration
	// ShutdownDelay is how long the server still accepts after it was told to
	// stop, while its answers announce the end of their connections: 0.
	ShutdownDelay time.Duration
	// MaxBootFailures is how many workers of a new phase may fail to boot
	// before the old phase is kept, 3.
	MaxBootFailures int
	// Culling chooses who goes when there are too many workers: Youngest.
	Culling Culling

	// MaxRequests, MaxAge and MaxMemory (bytes, of memory that is the worker's
	// own) replace a worker that has passed them; 0: never. Each worker gets
	// thresholds of its own, larger by a random part of Jitter (0.1, which is
	// 10 %; always above 0), so that not all are replaced at once.
	MaxRequests uint64
	MaxAge      time.Duration
	MaxMemory   int64
	Jitter      float64

	Hooks Hooks
}

// Hooks are called on the master's goroutine, so they should be quick: meanwhile
// nobody watches the workers. They must not call methods of the Cluster, which
// wait for that goroutine. A hook that panics is logged and otherwise ignored. A
// hook that starts a process waits for it.
type Hooks struct {
	BeforeFork          func()          // once in a program, before the first worker that it starts
	BeforeWorkerFork    func(index int) // before each worker is started
	AfterWorkerFork     func(index int) // after it was started; it does not serve yet
	AfterBooted         func()          // when all workers serve, and again after each restart
	AfterWorkerShutdown func(Exit)      // after a worker's end
	BeforeRestart       func()          // before a phased or a hot restart begins
}

// Exit is how a worker ended.
type Exit struct {
	Index, PID, Phase int
	Status            syscall.WaitStatus
	// Reason in words: "stopped", "exit code 2", "killed by SIGSEGV", …
	Reason string
	// Expected: it was told to go.
	Expected bool
	// Memory: the kernel has killed it for lack of memory.
	Memory bool
}

// MostWorkers is how many workers there can be: the shared page needs room for
// as many again, which leave while others already take their places.
const MostWorkers = page.MaxSlots/2 - 1

// Exit codes of a process that the master has started (sysexits.h has 78).
const (
	exitBoot     = 3
	exitProtocol = 4
	exitConfig   = 78
)

func (o Options) withDefaults() (Options, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if o.Argv == nil {
		o.Argv = os.Args
	}
	if o.Env == nil {
		o.Env = os.Environ()
	}
	setDefault(&o.MinWorkers, 1)
	setDefault(&o.MaxWorkers, min(max(2*o.Workers, 8), MostWorkers))
	setDefault(&o.PreloadTimeout, 5*time.Minute)
	setDefault(&o.CheckInterval, 5*time.Second)
	setDefault(&o.WorkerTimeout, time.Minute)
	setDefault(&o.BootTimeout, time.Minute)
	setDefault(&o.ShutdownTimeout, 30*time.Second)
	setDefault(&o.MaxBootFailures, 3)
	setDefault(&o.Culling, Youngest)
	setDefault(&o.Jitter, 0.1)
	if err := o.validate(); err != nil {
		return o, err
	}
	return o, o.locate()
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (o Options) validate() error {
	var errs []error
	refuse := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf("cluster: "+format, args...))
		}
	}
	refuse(o.Workers < 1 || o.Workers > MostWorkers, "Workers is %d, want 1 to %d", o.Workers, MostWorkers)
	refuse(o.MaxWorkers > MostWorkers, "MaxWorkers is %d, at most %d are possible", o.MaxWorkers, MostWorkers)
	refuse(o.MinWorkers < 1, "MinWorkers is %d, want at least 1", o.MinWorkers)
	refuse(o.MinWorkers > o.Workers || o.Workers > o.MaxWorkers,
		"Workers is %d, want MinWorkers (%d) to MaxWorkers (%d)", o.Workers, o.MinWorkers, o.MaxWorkers)
	refuse(len(o.Binds) == 0, "no Binds: there is nothing to listen on")
	refuse(len(o.Argv) == 0, "Argv is empty, want the program's name at least")
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"CheckInterval", o.CheckInterval}, {"BootTimeout", o.BootTimeout}, {"ShutdownTimeout", o.ShutdownTimeout},
		{"PreloadTimeout", o.PreloadTimeout}, {"ShutdownDelay", o.ShutdownDelay}, {"MaxAge", o.MaxAge},
	} {
		refuse(d.value < 0, "%s is %s, want no negative time", d.name, d.value)
	}
	refuse(o.WorkerTimeout <= o.CheckInterval, "WorkerTimeout is %s, want more than CheckInterval (%s)", o.WorkerTimeout, o.CheckInterval)
	refuse(o.MaxBootFailures < 1, "MaxBootFailures is %d, want at least 1", o.MaxBootFailures)
	refuse(o.Culling != Youngest && o.Culling != Oldest, "Culling is %q, want %q or %q", o.Culling, Youngest, Oldest)
	refuse(o.MaxMemory < 0, "MaxMemory is %d, want no negative size", o.MaxMemory)
	refuse(!(o.Jitter > 0 && o.Jitter <= 1), "Jitter is %g, want above 0 and at most 1", o.Jitter)
	return errors.Join(errs...)
}

// locate makes Path and Directory absolute, without following symbolic links:
// each restart does that anew.
func (o *Options) locate() (err error) {
	if o.Directory == "" {
		if o.Directory, err = os.Getwd(); err != nil {
			return fmt.Errorf("cluster: Directory: %w", err)
		}
	} else if o.Directory, err = filepath.Abs(o.Directory); err != nil {
		return fmt.Errorf("cluster: Directory: %w", err)
	}
	if o.Path == "" {
		o.Path = o.Argv[0]
		if !strings.Contains(o.Path, "/") {
			if found, err := exec.LookPath(o.Path); err == nil {
				o.Path = found
			} else if o.Path, err = os.Executable(); err != nil {
				return fmt.Errorf("cluster: Path: %w", err)
			}
		}
		// What was typed is relative to where it was typed.
		if o.Path, err = filepath.Abs(o.Path); err != nil {
			return fmt.Errorf("cluster: Path: %w", err)
		}
	}
	if !filepath.IsAbs(o.Path) {
		o.Path = filepath.Join(o.Directory, o.Path)
	}
	return nil
}

// without takes variables out of an environment.
func without(env []string, names ...string) []string {
	var kept []string
next:
	for _, variable := range env {
		for _, name := range names {
			if strings.HasPrefix(variable, name+"=") {
				continue next
			}
		}
		kept = append(kept, variable)
	}
	return kept
}

// cleanEnv is the environment that the user has given, without what one master
// tells another, or a worker.
func (o Options) cleanEnv() []string {
	return without(o.Env, StateVariable, worker.InheritanceVariable)
}
