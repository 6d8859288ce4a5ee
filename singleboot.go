package catamount

import (
	"context"
	"errors"
	"fmt"

	"github.com/catamount-server/catamount/cluster"
	"github.com/catamount-server/catamount/internal/preload"
	"github.com/catamount-server/catamount/worker"
)

// bootOrStop calls the application, which may take its time, or hang, and
// listens to signals meanwhile. When it is told to stop it does not wait: there
// is no request yet that could get lost. Nothing can end the application's
// functions but themselves; their context is done once the caller returns. The
// end of life is such an order as well.
func (s *single) bootOrStop(life context.Context) (stopped bool, err error) {
	booted, abandoned := make(chan error), make(chan struct{})
	defer close(abandoned)
	go func() {
		err := errBootEnded
		defer func() {
			select {
			case booted <- err:
			case <-abandoned:
				if err == nil {
					s.server.Close()
				}
			}
		}()
		err = s.boot(life)
	}()
	for {
		select {
		case err := <-booted:
			if err == nil || life.Err() == nil {
				return false, err
			}
			return s.stopBooting(err.Error()), nil
		case <-life.Done():
			return s.stopBooting(context.Cause(life).Error()), nil
		case sig := <-s.signals:
			if s.saysStop(sig) {
				return s.stopBooting(cluster.SignalName(sig)), nil
			}
		}
	}
}

func (s *single) stopBooting(cause string) (stopped bool) {
	s.logger.Info("Stopping before the application has booted", "cause", cause)
	return true
}

// errBootEnded: there is nothing to wait for any more.
var errBootEnded = errors.New("the application ended its goroutine (runtime.Goexit) instead of returning")

// boot makes the server.
func (s *single) boot(life context.Context) error {
	page, err := localPage()
	if err != nil {
		return err
	}
	s.worker = &Worker{page: page, context: life}
	options, err := s.Launcher.boot(s.worker, s.logger, func() (*Preloaded, error) { return s.preloadHere(life) })
	if err != nil {
		return err
	}
	options.OutOfBand = s.outOfBand(s.worker, s.logger)
	s.server, err = worker.NewServer(options)
	return err
}

// preloadHere runs App.Preload in this process, which cannot be killed when it
// takes too long: only its context can end.
func (s *single) preloadHere(life context.Context) (*Preloaded, error) {
	if s.app.Preload == nil {
		return nil, nil
	}
	if limit := s.config.PreloadTimeout; limit > 0 {
		var cancel context.CancelFunc
		life, cancel = context.WithTimeoutCause(life, limit, fmt.Errorf("it took longer than Config.PreloadTimeout (%v)", limit))
		defer cancel()
	}
	return preload.Local(func(b *Preloader) error { return s.fill(life, b, s.logger) })
}
