package catamount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/catamount-server/catamount/worker"
)

// runSingle serves in this process (Puma's single.rb): no master, no pipes.
func (l *Launcher) runSingle(ctx context.Context) (err error) {
	// Signals count from the moment that somebody can know of this server.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT,
		syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTTIN, syscall.SIGTTOU)
	defer signal.Stop(signals)

	if l.config.Directory != "" {
		if err := os.Chdir(l.config.Directory); err != nil {
			return err
		}
	}
	binder, listeners, urls, err := l.listen(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, binder.Close()) }()
	s := &single{Launcher: l, signals: signals, served: make(chan error, len(listeners)), stopped: make(chan error, 1), ask: make(chan struct{}), ended: make(chan struct{})}
	life, drain := context.WithCancel(ctx)
	defer drain()
	closeAll := func() {
		for _, listener := range listeners {
			listener.Close()
		}
	}
	if stopped, err := s.bootOrStop(life); stopped || err != nil {
		closeAll()
		return err
	}
	s.drain, s.startedAt = drain, time.Now()
	l.setSingle(s)
	defer l.setSingle(nil)
	for _, listener := range listeners {
		go func() { s.served <- s.server.Serve(listener) }()
	}
	l.config.announce(l.stdout, l.logger, urls)
	if l.app.AfterBooted != nil {
		_ = guard(l.logger, "AfterBooted", func() error { l.app.AfterBooted(); return nil })
	}
	err = s.wait(ctx)
	close(s.ended)
	for range listeners { // every goroutine above ends with its Serve
		served := <-s.served
		if err == nil && !errors.Is(served, ErrServerClosed) {
			err = served
		}
	}
	if l.app.BeforeWorkerShutdown != nil {
		_ = guard(l.logger, "BeforeWorkerShutdown", func() error { l.app.BeforeWorkerShutdown(s.worker); return nil })
	}
	// Page and preloaded data stay: a handler that has not returned, or a
	// goroutine of the application's, may still point into them.
	return err
}

// single is a serving process without a master, and everything that can happen
// to it.
type single struct {
	*Launcher
	worker  *Worker
	server  *worker.Server
	drain   func() // ends Worker.Context
	signals <-chan os.Signal
	served  chan error    // what each Serve returned; one value per listener
	stopped chan error    // what Shutdown returned
	ask     chan struct{} // Launcher.Stop
	ended   chan struct{} // closed when wait has returned

	startedAt time.Time
}

func (l *Launcher) setSingle(s *single) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.single = s
}

// maxStacks bounds what SIGQUIT prints.
const maxStacks = 64 << 20

// cutGrace is how long handlers have that heed the end of their contexts, when
// their requests are cut off. Others could hold up the end for ever.
const cutGrace = time.Second

// wait returns when the server has stopped: nil when it was told to.
func (s *single) wait(ctx context.Context) error {
	stopping, cut := false, false
	var late <-chan time.Time // when a cut is waited for no longer
	begin := func() {
		s.drain()
		for _, f := range s.worker.drainHooks(s.logger) {
			go func() {
				grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.config.StreamGrace)
				defer cancel()
				f(grace)
			}()
		}
		// As Puma waits: without a limit, as there is a second signal.
		s.stopped <- s.server.Shutdown(context.WithoutCancel(ctx))
	}
	stop := func(cause string) {
		if cut {
			return
		}
		if stopping {
			cut = true
			s.logger.Warn("Stopping at once, requests are cut off", "cause", cause)
			s.server.Close() // makes Shutdown return, once all handlers have
			late = time.After(cutGrace)
			return
		}
		stopping = true
		s.logger.Info("Gracefully stopping, waiting for requests to finish", "cause", cause)
		go begin()
	}

	done, served := ctx.Done(), s.served
	for {
		select {
		case sig := <-s.signals:
			switch sig {
			case syscall.SIGINT, syscall.SIGTERM:
				stop(sig.String())
			case syscall.SIGQUIT:
				s.stderr.Write(worker.AllStacks(maxStacks))
			default:
				s.ignore(sig)
			}
		case <-s.ask:
			stop("Stop was called")
		case <-done:
			done = nil
			stop(context.Cause(ctx).Error())
		case err := <-served:
			s.served <- err // the caller counts them
			if errors.Is(err, ErrServerClosed) {
				served = nil // Shutdown reports the end
				continue
			}
			s.server.Close() // one address is lost: the others must not hide it
			return err
		case err := <-s.stopped:
			if err != nil && !cut { // who asked twice knows that not all was finished
				return fmt.Errorf("shutdown: %w", err)
			}
			return nil
		case <-late:
			s.logger.Warn("Ending while handlers run on that do not heed their contexts", "handlers", s.server.Stats().BusyThreads)
			return nil
		}
	}
}
