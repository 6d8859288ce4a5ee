package catamount

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"

	"github.com/catamount-server/catamount/cluster"
	"github.com/catamount-server/catamount/worker"
)

// Exit codes of Main.
const (
	ExitOK       = 0
	ExitFailure  = 1  // serving failed, or could not begin
	ExitUsage    = 2  // the flags are wrong
	ExitBoot     = 3  // of a worker: it could not boot
	ExitProtocol = 4  // of a worker: its master is of another version
	ExitConfig   = 78 // the configuration is wrong (EX_CONFIG of sysexits.h)
)

// Main is the main function of a program that serves an application: it reads
// flags and environment (see ParseFlags), runs the application in this process
// or as a master with workers, and ends the program with one of the exit codes
// above. The workers are this program again: Main must be reached in them in the
// same way, and what the program does before calling it, it does in each of
// them.
func Main(app App) { os.Exit(Launch(context.Background(), Program{}, app)) }

// Run is Main for those who have their own way to a Config. It returns nil after
// an orderly end. A program that runs workers must call Run in them as well: it
// returns there when the worker's time is over, and the program must end then
// instead of calling Run again, which would make it a server of its own. What
// single mode has made for counters and preloaded data stays until the process
// ends.
func Run(ctx context.Context, config Config, app App) error {
	l, err := NewLauncher(config, app)
	if err != nil {
		return err
	}
	return l.Run(ctx)
}

// Program is what Launch takes from its surroundings.
type Program struct {
	// Name is for messages; "" is that of the running program.
	Name string
	// Args are the flags; nil is os.Args[1:].
	Args []string
	// Config is what flags and environment change.
	Config Config
	// Stdout and Stderr are for the banner and for messages; nil are the
	// process's own.
	Stdout, Stderr io.Writer
}

// Launch is Main with surroundings of the caller's choice. It returns the exit
// code.
func Launch(ctx context.Context, program Program, app App) int {
	program.fill()
	link, err := attach()
	if err != nil {
		fmt.Fprintf(program.Stderr, "%s: %v\n", program.Name, err)
		return exitCode(err)
	}
	config, err := ParseFlags(program.Args, os.Getenv, program.Config)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintf(program.Stdout, "Usage: %s [flags]\n\n%s", program.Name, FlagsHelp)
		return ExitOK
	case errors.Is(err, ErrVersion):
		fmt.Fprintf(program.Stdout, "catamount %s (%s %s/%s)\n", Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return ExitOK
	case err != nil:
		if link != nil {
			link.Fail(err)
		}
		err = rollback(os.Getenv(cluster.StateVariable), err)
		fmt.Fprintf(program.Stderr, "%s: %v (see \"%s -h\")\n", program.Name, err, program.Name)
		return ExitUsage
	}
	l, err := newLauncher(config, app, link, program.Stdout, program.Stderr)
	if err == nil {
		err = l.Run(ctx)
	}
	return exitCode(err)
}

func (p *Program) fill() {
	if p.Name == "" {
		p.Name = filepath.Base(os.Args[0])
	}
	if p.Args == nil {
		p.Args = os.Args[1:]
	}
	if p.Stdout == nil {
		p.Stdout = os.Stdout
	}
	if p.Stderr == nil {
		p.Stderr = os.Stderr
	}
}

// ExitError is an error of Run with the exit code that fits it.
type ExitError struct {
	Code int
	Err  error
}

// Error is Err's.
func (e *ExitError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *ExitError) Unwrap() error { return e.Err }

func exitCode(err error) int {
	if err == nil {
		return ExitOK
	}
	if exit, ok := errors.AsType[*ExitError](err); ok {
		return exit.Code
	}
	if _, ok := errors.AsType[*ConfigError](err); ok {
		return ExitConfig
	}
	return ExitFailure
}

// attach takes up what a master has left to this process; nil if there is none.
func attach() (*worker.Link, error) {
	text, ok := os.LookupEnv(worker.InheritanceVariable)
	if !ok {
		return nil, nil
	}
	// Programs that this one starts are not workers.
	_ = os.Unsetenv(worker.InheritanceVariable)
	inheritance, err := worker.ParseInheritance(text)
	if err != nil {
		return nil, &ExitError{ExitProtocol, err}
	}
	link, err := worker.Attach(inheritance)
	if err != nil {
		return nil, &ExitError{ExitProtocol, err}
	}
	if inheritance.Argv0 != "" {
		os.Args[0] = inheritance.Argv0
	}
	return link, nil
}

// Launcher runs an App as a Config says (Puma's launcher.rb): it is the master,
// a worker, or the one process of single mode. Its methods other than Run may be
// called from any goroutine while Run runs.
type Launcher struct {
	config *resolved
	app    App
	logger *slog.Logger
	link   *worker.Link // to the master that has started this process; nil without
	state  string       // what the program before has left in this process with a hot restart

	stdout, stderr io.Writer
	brokenPipes    chan os.Signal // nobody reads it, see heedNoBrokenPipe

	mu      sync.Mutex
	cluster *cluster.Cluster // of a master that runs
	single  *single          // of single mode that runs
}

// NewLauncher checks the configuration. In a process that a master has started
// it takes up what that has left to it, and tells it when something is wrong.
func NewLauncher(config Config, app App) (*Launcher, error) {
	link, err := attach()
	if err != nil {
		return nil, err
	}
	return newLauncher(config, app, link, os.Stdout, os.Stderr)
}

func newLauncher(config Config, app App, link *worker.Link, stdout, stderr io.Writer) (*Launcher, error) {
	l := &Launcher{
		app: app, logger: config.Logger, link: link, stdout: stdout, stderr: stderr, state: takeState(),
		brokenPipes: heedNoBrokenPipe(),
	}
	if l.logger == nil {
		l.logger = newLogger(stderr, config.Quiet)
	}
	err := l.configure(config)
	if err == nil {
		return l, nil
	}
	l.logger.Error("cannot start", "err", err)
	signal.Stop(l.brokenPipes)
	if link != nil {
		link.Fail(err)
	}
	return nil, &ExitError{ExitConfig, rollback(l.state, err)}
}

// heedNoBrokenPipe is for a log whose reader has ended, as journald does in an
// upgrade. A SIGPIPE from standard output or standard error ends a Go program
// that is not notified of it, with all that it serves. The signal is caught and
// not ignored: programs that the application starts would inherit that.
func heedNoBrokenPipe() chan os.Signal {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGPIPE)
	return c
}

// takeState takes what a hot restart has left out of the environment.
func takeState() string {
	state := os.Getenv(cluster.StateVariable)
	if state == "" {
		return ""
	}
	_ = os.Unsetenv(cluster.StateVariable)
	if argv0, err := cluster.Argv0(state); err == nil {
		os.Args[0] = argv0
	}
	return state
}

// rollback executes the program again that was here before a hot restart, and
// has workers, because this one cannot go on. It returns the error where there
// was none.
func rollback(state string, err error) error {
	if state == "" {
		return err
	}
	return cluster.Rollback(state, err)
}

func (l *Launcher) configure(config Config) (err error) {
	if l.app.Handler == nil {
		return errNoHandler
	}
	l.config, err = config.resolve()
	return err
}

// Run serves until it is told to stop, by a signal, by Stop or by ctx. In a
// worker it returns when the worker's time is over, and the program should end
// then. It may be called once.
func (l *Launcher) Run(ctx context.Context) error {
	defer signal.Stop(l.brokenPipes)
	if l.link != nil {
		return l.runChild(ctx)
	}
	return l.run(ctx)
}

// run serves until it is told to stop, in this process or as a master.
func (l *Launcher) run(ctx context.Context) (err error) {
	// Signals count from the moment that somebody can know of this process, which
	// is before there is a pidfile, until that has been removed. A program that
	// takes over from another one listens already, and may have to hand back.
	signals := make(chan os.Signal, 16)
	defer signal.Stop(signals)
	if l.state == "" {
		signal.Notify(signals, cluster.Signals()...)
	}
	defer func() {
		if err != nil {
			l.logger.Error("serving failed", "err", err)
		} else {
			l.logger.Info("Goodbye!")
		}
	}()
	for _, own := range []struct {
		name, path string
		write      func(string) (*ownFile, error)
	}{{"pidfile", l.config.Pidfile, writePidfile}, {"state file", l.config.StateFile, writeState}} {
		if own.path == "" {
			continue
		}
		file, err := own.write(own.path)
		switch {
		case err == nil:
			defer file.remove()
		case cluster.IsRollback(l.state): // the workers serve: they must not lose their master for that
			l.logger.Error("the "+own.name+" cannot be written", "err", err)
		default:
			return rollback(l.state, fmt.Errorf("%s: %w", own.name, err))
		}
	}
	if l.config.workers == 0 && l.state == "" {
		return l.runSingle(ctx, signals)
	}
	return l.runMaster(ctx, signals)
}
