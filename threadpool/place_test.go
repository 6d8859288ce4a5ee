package threadpool

import (
	"testing"
	"testing/synctest"
)

// detachedHolder submits a task that detaches itself, and returns when it has.
func detachedHolder(t *testing.T, p *funcPool) (*holder, *Place) {
	t.Helper()
	h := newHolder()
	submit(t, p, func(pl *Place) {
		pl.Local = h
		p.Detach(pl)
		p.Detach(pl) // without effect
		h.task(pl)
	})
	return h, receive(t, h.place)
}

func TestDetachMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFuncPool(t, Options{Max: 1})
		h, detached := detachedHolder(t, p)
		if s := p.Stats(); s.Detached != 1 || s.Running != 0 || s.PoolCapacity != 1 || s.Busy != 0 {
			t.Errorf("%+v, want 1 detached and nothing running", s)
		}
		second := hold(t, p, 1)[0]
		pl := <-second.place
		if pl == detached || pl.Index != detached.Index || pl.Local != nil {
			t.Errorf("second place %p index %d local %v; want a fresh one with index 0", pl, pl.Index, pl.Local)
		}
		if !p.Full() {
			t.Error("the second task does not count")
		}
		// No room when the detached task ends: its goroutine goes.
		close(h.release)
		synctest.Wait()
		if s := p.Stats(); s.Detached != 0 || s.Running != 1 || p.ants.Running() != 1 {
			t.Errorf("%+v with %d goroutines, want the second task's only", s, p.ants.Running())
		}
		close(second.release)
		shutdown(t, p)
	})
}

func TestDetachStartsAnotherForQueuedTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFuncPool(t, Options{Max: 1})
		first := newHolder()
		goOn := make(chan struct{})
		submit(t, p, func(pl *Place) {
			<-goOn
			p.Detach(pl)
			first.task(pl)
		})
		second := newHolder()
		submit(t, p, second.task)
		synctest.Wait()
		if n := p.Backlog(); n != 1 {
			t.Fatalf("Backlog = %d, want the second task", n)
		}
		close(goOn)
		receive(t, second.place)
		receive(t, first.place)
		close(first.release)
		close(second.release)
		shutdown(t, p)
	})
}

func TestDetachedTaskRejoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFuncPool(t, Options{Max: 2})
		h, detached := detachedHolder(t, p)
		close(h.release)
		synctest.Wait()
		if s := p.Stats(); s.Detached != 0 || s.Running != 1 || s.Waiting != 1 || p.ants.Running() != 1 {
			t.Errorf("%+v with %d goroutines, want the one at rest", s, p.ants.Running())
		}
		again := hold(t, p, 1)[0]
		if pl := <-again.place; pl != detached || pl.Local != h {
			t.Errorf("place %p with %v, want the rejoined one", pl, pl.Local)
		}
		close(again.release)
		shutdown(t, p)
		if n := p.Stats().Spawned; n != 1 {
			t.Errorf("%d places made, want 1", n)
		}
	})
}

// While detached ones wait, the others are bounded as ever.
func TestDetachedDoNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFuncPool(t, Options{Max: 3})
		var detached []*holder
		for range 20 {
			h, _ := detachedHolder(t, p)
			detached = append(detached, h)
		}
		held := hold(t, p, 3)
		submit(t, p, func(*Place) {})
		synctest.Wait()
		if s := p.Stats(); s.Detached != 20 || s.Running != 3 || s.Backlog != 1 || p.ants.Running() != 23 {
			t.Errorf("%+v with %d goroutines", s, p.ants.Running())
		}
		for _, h := range append(held, detached...) {
			close(h.release)
		}
		synctest.Wait()
		if s := p.Stats(); s.Running > 3 || s.Running != p.ants.Running() {
			t.Errorf("%+v with %d goroutines after all tasks", s, p.ants.Running())
		}
		shutdown(t, p)
	})
}
