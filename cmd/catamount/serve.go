package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/catamount-server/catamount"
)

// serve runs the server until it is told to stop, and returns the exit code.
func serve(ctx context.Context, cfg config, stdout, stderr io.Writer) int {
	logger := newLogger(cfg, stderr)
	listeners, err := listenAll(ctx, cfg.binds)
	if err != nil {
		logger.Error("cannot listen", "err", err)
		return exitFailure
	}

	// Signals count from the moment that somebody can know of this server.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	defer signal.Stop(signals)

	s := &serving{
		server:  cfg.server(),
		logger:  logger,
		signals: signals,
		served:  make(chan error, len(listeners)),
		stopped: make(chan error, 1),
		stderr:  stderr,
	}
	s.server.Logger = logger
	var urls []string
	for _, l := range listeners {
		defer l.Close()
		urls = append(urls, urlOf(l))
		go func() { s.served <- s.server.Serve(l) }()
	}
	announce(cfg, urls, stdout, logger)

	err = s.wait(ctx)
	for range listeners { // every goroutine above ends with its Serve
		served := <-s.served
		if err == nil && !errors.Is(served, catamount.ErrServerClosed) {
			err = served
		}
	}
	if err != nil {
		logger.Error("serving failed", "err", err)
		return exitFailure
	}
	logger.Info("Goodbye!")
	return exitOK
}

// serving is a server at work and everything that can happen to it.
type serving struct {
	server  *catamount.Server
	logger  *slog.Logger
	signals <-chan os.Signal
	served  chan error // what each Serve returned; one value per listener
	stopped chan error // what Shutdown returned
	stderr  io.Writer
}

// wait returns when the server has stopped: nil when it was told to.
func (s *serving) wait(ctx context.Context) error {
	stopping, cut := false, false
	stop := func(cause string) {
		if stopping {
			cut = true
			s.logger.Warn("Stopping at once, requests are cut off", "cause", cause)
			s.server.Close() // makes Shutdown return
			return
		}
		stopping = true
		s.logger.Info("Gracefully stopping, waiting for requests to finish", "cause", cause)
		go func() {
			// As Puma waits: without a limit, as there is a second signal.
			s.stopped <- s.server.Shutdown(context.WithoutCancel(ctx))
		}()
	}

	done, served := ctx.Done(), s.served
	for {
		select {
		case sig := <-s.signals:
			if sig == syscall.SIGQUIT {
				s.stderr.Write(goroutines())
				continue
			}
			stop(sig.String())
		case <-done:
			done = nil
			stop(context.Cause(ctx).Error())
		case err := <-served:
			s.served <- err // the caller counts them
			if errors.Is(err, catamount.ErrServerClosed) {
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
		}
	}
}

// listenAll listens on every address, or on none.
func listenAll(ctx context.Context, binds []bind) (listeners []net.Listener, err error) {
	for _, b := range binds {
		l, err := b.listen(ctx)
		if err != nil {
			for _, l := range listeners {
				l.Close()
			}
			return nil, fmt.Errorf("%v: %w", b, err)
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// goroutines returns the stacks of all goroutines, up to 64 MB of them.
func goroutines() []byte {
	for size := 1 << 16; ; size *= 4 {
		stacks := make([]byte, size)
		if n := runtime.Stack(stacks, true); n < size || size >= 1<<26 {
			return append(stacks[:n], '\n')
		}
	}
}
