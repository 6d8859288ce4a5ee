package catamount

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"

	"github.com/catamount-server/catamount/internal/page"
	"github.com/catamount-server/catamount/internal/preload"
	"github.com/catamount-server/catamount/worker"
)

// runChild is Run in a process that a master has started.
func (l *Launcher) runChild(ctx context.Context) error {
	inheritance := l.link.Inheritance()
	logger := l.logger.With("pid", os.Getpid())
	var err error
	switch inheritance.Role {
	case worker.RoleCheck:
		err = l.checkTakeOver()
	case worker.RolePreload:
		err = l.preload(ctx, inheritance.Preload, logger)
	case worker.RoleWorker:
		return l.work(ctx, l.logger.With("worker", inheritance.Index, "pid", os.Getpid()))
	}
	if err == nil {
		return nil
	}
	l.link.Fail(err)
	if exitCode(err) == ExitConfig {
		return err
	}
	return &ExitError{ExitBoot, err}
}

// checkTakeOver: could this program take the place of the master that asks?
func (l *Launcher) checkTakeOver() error {
	if l.config.workers == 0 {
		return &ConfigError{"Workers", errors.New("0: a master with workers cannot become a single process")}
	}
	return nil
}

// preload fills the memory behind the descriptor with what the application
// wants its workers to share.
func (l *Launcher) preload(ctx context.Context, fd int, logger *slog.Logger) error {
	if l.app.Preload == nil {
		return errors.New("App.Preload is nil, and a preloading process was started")
	}
	builder, err := preload.NewBuilder(fd)
	if err != nil {
		return err
	}
	if err := l.fill(ctx, builder, logger); err != nil {
		return err
	}
	return builder.Seal()
}

func (l *Launcher) fill(ctx context.Context, builder *Preloader, logger *slog.Logger) error {
	return guard(logger, "Preload", func() error { return l.app.Preload(ctx, builder) })
}

// work serves, from boot to drain.
func (l *Launcher) work(ctx context.Context, logger *slog.Logger) error {
	link, inheritance := l.link, l.link.Inheritance()
	life, drain := context.WithCancel(ctx)
	defer drain()
	w := &Worker{index: inheritance.Index, phase: inheritance.Phase, page: link.Page(), context: life}
	options, err := l.boot(w, logger, func() (*Preloaded, error) {
		if inheritance.Preload < 0 {
			return nil, nil
		}
		return preload.Open(inheritance.Preload)
	})
	if err != nil {
		link.Fail(err)
		return &ExitError{ExitBoot, err}
	}
	return link.Serve(ctx, worker.ServeOptions{
		Options:      options,
		PingInterval: l.config.WorkerCheckInterval,
		StreamGrace:  l.config.StreamGrace,
		OrphanGrace:  l.config.OrphanGrace,
		OnDrain:      append([]func(context.Context){func(context.Context) { drain() }}, w.drainHooks(logger)...),
		BeforeShutdown: func() {
			if l.app.BeforeWorkerShutdown != nil {
				_ = guard(logger, "BeforeWorkerShutdown", func() error { l.app.BeforeWorkerShutdown(w); return nil })
			}
		},
		OutOfBand: l.outOfBand(w, logger),
		Logger:    logger,
	})
}

func (l *Launcher) outOfBand(w *Worker, logger *slog.Logger) func() {
	if l.app.OutOfBand == nil {
		return nil
	}
	return func() {
		_ = guard(logger, "OutOfBand", func() error { l.app.OutOfBand(w); return nil })
	}
}

// drainHooks are what the application has given to OnDrain. A panic in one must
// not cut off the requests that the worker is about to finish.
func (w *Worker) drainHooks(logger *slog.Logger) []func(context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	hooks := make([]func(context.Context), len(w.onDrain))
	for i, f := range w.onDrain {
		hooks[i] = func(ctx context.Context) {
			_ = guard(logger, "OnDrain", func() error { f(ctx); return nil })
		}
	}
	return hooks
}

// boot runs the application's side of a start and returns what its server
// needs. preloaded returns the data that the worker shares with others, if any.
func (l *Launcher) boot(w *Worker, logger *slog.Logger, preloaded func() (*Preloaded, error)) (worker.Options, error) {
	options, err := l.config.server.options()
	if err != nil {
		return options, err
	}
	if w.preloaded, err = preloaded(); err != nil {
		return options, fmt.Errorf("preloaded data: %w", err)
	}
	var handler http.Handler
	if l.app.BeforeWorkerBoot != nil {
		err = guard(logger, "BeforeWorkerBoot", func() error { l.app.BeforeWorkerBoot(w); return nil })
	}
	if err == nil {
		err = guard(logger, "Handler", func() (err error) { handler, err = l.app.Handler(w); return err })
	}
	if err == nil && handler == nil {
		err = errors.New("App.Handler returned no handler")
	}
	options.Handler, options.Logger = handler, logger
	if l.config.LogRequests {
		options.OnRequest = requestLog(logger)
	}
	return options, err
}

// localPage has the application's counters where there is no master.
func localPage() (*page.Page, error) { return page.Create(1, page.Layout{}) }

// guard calls a function of the application's. A panic becomes an error, with
// its stack in the log.
func guard(logger *slog.Logger, name string, f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
			logger.Error("the application panicked", "in", name, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
		}
		if err != nil {
			err = fmt.Errorf("the application: %s: %w", name, err)
		}
	}()
	return f()
}
