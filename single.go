package catamount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/catamount-server/catamount/cluster"
	"github.com/catamount-server/catamount/worker"
)

// runSingle serves in this process (Puma's single.rb): no master, no pipes.
func (l *Launcher) runSingle(ctx context.Context, signals <-chan os.Signal) (err error) {
	if l.config.Directory != "" {
		if err := os.Chdir(l.config.Directory); err != nil {
			return fmt.Errorf("catamount: Config.Directory: %w", err)
		}
	}
	binder, listeners, urls, err := l.listen(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, binder.Close()) }()
	s := &single{Launcher: l, signals: signals, binder: binder, served: make(chan error, len(listeners)), stopped: make(chan error, 1), ask: make(chan struct{}), ended: make(chan struct{})}
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
		s.beforeShutdown()
	}
	// Page and preloaded data stay: a handler that has not returned, or a
	// goroutine of the application's, may still point into them.
	return err
}

// beforeShutdown calls the hook. There is no master whose WorkerShutdownTimeout
// would end one that hangs: only whoever sends another signal.
func (s *single) beforeShutdown() {
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		_ = guard(s.logger, "BeforeWorkerShutdown", func() error { s.app.BeforeWorkerShutdown(s.worker); return nil })
	}()
	for {
		select {
		case <-returned:
			return
		case sig := <-s.signals:
			if s.saysStop(sig) {
				s.logger.Warn("Stopping at once, without the end of BeforeWorkerShutdown", "cause", cluster.SignalName(sig))
				return
			}
		}
	}
}

// single is a serving process without a master, and everything that can happen
// to it.
type single struct {
	*Launcher
	worker  *Worker
	server  *worker.Server
	binder  *cluster.Binder
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

// saysStop does what a signal asks for, in whatever part of its life the process
// is, unless that is to stop.
func (s *single) saysStop(sig os.Signal) bool {
	switch sig {
	case syscall.SIGINT, syscall.SIGTERM:
		return true
	case syscall.SIGQUIT:
		s.stderr.Write(worker.AllStacks(maxStacks))
	default:
		s.logger.Warn("signal ignored: there are no workers in single mode", "signal", cluster.SignalName(sig))
	}
	return false
}

// cutGrace is how long handlers have to notice that their requests were cut off.
const cutGrace = time.Second

// maxStacks bounds what SIGQUIT prints.
const maxStacks = 64 << 20

// wait returns when the server has stopped: nil when it was told to.
func (s *single) wait(ctx context.Context) error {
	stopping, cut := false, false
	var over <-chan time.Time
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
			cut, over = true, time.After(cutGrace)
			s.logger.Warn("Stopping at once, requests are cut off", "cause", cause)
			s.server.Close() // makes Shutdown return once the handlers have
			return
		}
		stopping = true
		s.logger.Info("Gracefully stopping, waiting for requests to finish", "cause", cause)
		// The server is to be the last to close the sockets: as long as anybody
		// has them the kernel connects clients whom nobody will serve.
		if err := s.binder.Close(); err != nil {
			s.logger.Error("a listening socket cannot be closed", "err", err)
		}
		go begin()
	}

	done, served := ctx.Done(), s.served
	for {
		select {
		case sig := <-s.signals:
			if s.saysStop(sig) {
				stop(cluster.SignalName(sig))
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
		case <-over:
			s.server.EndLog()
			s.logger.Warn("some handlers have not noticed that they were cut off", "requests", s.server.Stats().BusyThreads)
			return nil
		}
	}
}
