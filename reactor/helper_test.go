package reactor_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/catamount-server/catamount/reactor"
	"github.com/catamount-server/catamount/reactor/reactortest"
)

type (
	slot  = reactor.Slot[int]
	hooks = reactor.Hooks[int]
)

// rig is a reactor under test with the fake kernel.
type rig struct {
	*reactor.Reactor[int]
	t      *testing.T
	poller *reactortest.Poller
	ended  chan error // what Run returned
}

// inBubble runs a test of a reactor in virtual time. The reactor is stopped at
// the end; a goroutine that is left then fails the test.
func inBubble(t *testing.T, h *hooks, options reactor.Options, f func(r *rig)) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, h, options)
		r.run()
		f(r)
		r.stop()
	})
}

func newRig(t *testing.T, h *hooks, options reactor.Options) *rig {
	t.Helper()
	poller := reactortest.NewPoller()
	options.Poller = poller
	r, err := reactor.New[int](h, options)
	if err != nil {
		t.Fatal(err)
	}
	return &rig{Reactor: r, t: t, poller: poller, ended: make(chan error, 1)}
}

func (r *rig) run() { go func() { r.ended <- r.Run() }() }

func (r *rig) stop() {
	r.t.Helper()
	r.Stop()
	if err := <-r.ended; err != nil {
		r.t.Errorf("Run = %v", err)
	}
	if !r.poller.IsClosed() {
		r.t.Error("Run left its poller open")
	}
}

// do runs f on the reactor's goroutine and waits for it.
func (r *rig) do(f func()) {
	r.t.Helper()
	done := make(chan struct{})
	if err := r.Do(func() { defer close(done); f() }); err != nil {
		r.t.Fatal(err)
	}
	<-done
}

// add makes a client that the reactor owns, without a deadline.
func (r *rig) add(fd int) (s *slot) {
	r.t.Helper()
	r.do(func() {
		var err error
		if s, err = r.Add(fd); err != nil {
			r.t.Error(err)
		}
	})
	return s
}

// take makes the test the owner of a client.
func (r *rig) take(s *slot) {
	r.t.Helper()
	r.do(func() { r.Take(s) })
}

// event injects an event and waits until the reactor has dealt with it.
func (r *rig) event(fd int, events reactor.Events) {
	r.t.Helper()
	if err := r.poller.Event(fd, events); err != nil {
		r.t.Error(err)
	}
	synctest.Wait()
}

// pass lets virtual time pass, and the reactor do what is due by then.
func (r *rig) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}
