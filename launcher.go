package catamount

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"

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
// returns there when the worker's time is over.
func Run(ctx context.Context, config Config, app App) error {
	link, err := attach()
	if err != nil {
		return err
	}
	return run(ctx, config, app, link, os.Stdout, os.Stderr)
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
		fmt.Fprintf(program.Stderr, "%s: %v (see \"%s -h\")\n", program.Name, err, program.Name)
		return ExitUsage
	}
	return exitCode(run(ctx, config, app, link, program.Stdout, program.Stderr))
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

func (e *ExitError) Error() string { return e.Err.Error() }
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

// run is Run after the first look at the surroundings.
func run(ctx context.Context, config Config, app App, link *worker.Link, stdout, stderr io.Writer) error {
	logger := config.Logger
	if logger == nil {
		logger = newLogger(stderr, config.Quiet)
	}
	l, err := newLauncher(config, app, logger)
	if link != nil {
		return l.runChild(ctx, link, err)
	}
	if err != nil {
		logger.Error("cannot start", "err", err)
		return err
	}
	l.stdout, l.stderr = stdout, stderr
	return l.run(ctx)
}

// Launcher runs an App as a Config says (Puma's launcher.rb).
type Launcher struct {
	config *resolved
	app    App
	logger *slog.Logger

	stdout, stderr io.Writer

	mu      sync.Mutex
	cluster *cluster.Cluster
}

// newLauncher always returns a Launcher, for a child has to report the error.
func newLauncher(config Config, app App, logger *slog.Logger) (*Launcher, error) {
	l := &Launcher{app: app, logger: logger}
	if app.Handler == nil {
		return l, errNoHandler
	}
	resolved, err := config.resolve()
	if err != nil {
		return l, err
	}
	l.config = resolved
	if err := resolved.server.Validate(); err != nil {
		return l, &ConfigError{"Server", err}
	}
	return l, nil
}

// run serves until it is told to stop, in this process or as a master.
func (l *Launcher) run(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			l.logger.Error("serving failed", "err", err)
		} else {
			l.logger.Info("Goodbye!")
		}
	}()
	if l.config.Pidfile != "" {
		file, err := writePidfile(l.config.Pidfile)
		if err != nil {
			return fmt.Errorf("pidfile: %w", err)
		}
		defer file.remove()
	}
	if l.config.StateFile != "" {
		remove, err := writeState(l.config.StateFile)
		if err != nil {
			return fmt.Errorf("state file: %w", err)
		}
		defer remove()
	}
	if l.config.workers == 0 {
		return l.runSingle(ctx)
	}
	return l.runMaster(ctx)
}
