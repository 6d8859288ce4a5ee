package threadpool

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// always takes whatever is oldest.
func always(func(*Place)) bool { return true }

// A bound of n: every place is taken, n tasks wait, and not one more.
func TestTrySubmit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFuncPool(t, Options{Max: 3})
		held := hold(t, p, 3)
		for range 2 {
			h := newHolder()
			if err := p.TrySubmit(h.task, 2); err != nil {
				t.Fatal(err)
			}
			held = append(held, h)
		}
		synctest.Wait()
		refused := func(*Place) { t.Error("a refused task runs") }
		if err := p.TrySubmit(refused, 2); !errors.Is(err, ErrFull) {
			t.Errorf("a third waiting task: %v", err)
		}
		if n := p.Backlog(); n != 2 {
			t.Errorf("Backlog = %d, want 2", n)
		}
		// The bound is the caller's, for each task its own.
		own := newHolder()
		if err := p.TrySubmit(own.task, 3); err != nil {
			t.Errorf("with a bound of 3: %v", err)
		}
		letGo(append(held, own))
		for _, h := range append(held[3:], own) {
			receive(t, h.place)
		}
		shutdown(t, p)
		if err := p.TrySubmit(refused, 2); !errors.Is(err, ErrShutdown) {
			t.Errorf("after Shutdown: %v", err)
		}
	})
}

// A burst for which there are places does not wait, however far the pool's goroutines are behind with fetching it.
func TestTrySubmitCountsNoBurst(t *testing.T) {
	const places, bound = 16, 3
	p := newFuncPool(t, Options{Max: places})
	gate := make(chan struct{})
	var started atomic.Int32
	task := func(*Place) { started.Add(1); <-gate }
	for i := range places + bound {
		if err := p.TrySubmit(task, bound); err != nil {
			t.Fatalf("task %d of a burst: %v", i+1, err)
		}
	}
	if err := p.TrySubmit(task, bound); !errors.Is(err, ErrFull) {
		t.Errorf("task %d: %v", places+bound+1, err)
	}
	close(gate)
	shutdown(t, p)
	if n := started.Load(); n != places+bound {
		t.Errorf("%d tasks ran, want %d", n, places+bound)
	}
}

// Tasks come out in the order in which they went in, while every place is held.
func TestTakeOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var served []int
		p, err := New(Options{Max: 1}, func(_ *Place, f func() int) { served = append(served, f()) })
		if err != nil {
			t.Fatal(err)
		}
		gate := make(chan struct{})
		submit(t, p, func() int { <-gate; return 0 })
		synctest.Wait()
		for i := range 5 {
			submit(t, p, func() int { return i + 1 })
		}
		if _, taken := p.TakeOldest(func(f func() int) bool { return f() == 2 }); taken {
			t.Error("taken although declined")
		}
		for want := 1; want <= 3; want++ {
			f, taken := p.TakeOldest(func(f func() int) bool { return f() <= 3 })
			if !taken || f() != want {
				t.Fatalf("TakeOldest: %v, want task %d", taken, want)
			}
			if n := p.Backlog(); n != 5-want {
				t.Errorf("Backlog = %d, want %d", n, 5-want)
			}
		}
		if _, taken := p.TakeOldest(func(f func() int) bool { return f() <= 3 }); taken {
			t.Error("taken although declined")
		}
		checkInvariants(t, p)
		checkStats(t, p.Stats())
		close(gate)
		shutdown(t, p)
		if want := []int{0, 4, 5}; !slices.Equal(served, want) {
			t.Errorf("served %v, want %v", served, want)
		}
		if _, taken := p.TakeOldest(func(func() int) bool { t.Error("asked about an empty todo"); return true }); taken {
			t.Error("taken out of an empty todo")
		}
	})
}

// A pool whose last waiting tasks are taken away ends its shutdown.
func TestTakeOldestDuringShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFuncPool(t, Options{Max: 2})
		held := hold(t, p, 2)
		for range 3 {
			submit(t, p, func(*Place) { t.Error("a task that was taken away runs") })
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			shutdown(t, p)
		}()
		synctest.Wait()
		for range 3 {
			if _, taken := p.TakeOldest(always); !taken {
				t.Fatal("nothing to take")
			}
		}
		letGo(held)
		receive(t, ended)
	})
}

// Taking a task away may be what makes the pool not full.
func TestTakeOldestNotifiesNotFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFuncPool(t, Options{Max: 3})
		held := hold(t, p, 3)
		submit(t, p, func(*Place) {})
		if err := p.Resize(0, 4); err != nil { // four busy or waiting: full, and the fourth starts
			t.Fatal(err)
		}
		synctest.Wait()
		last := newHolder()
		submit(t, p, last.task)
		receive(t, last.place)
		waiting := make(chan struct{}, 1)
		submit(t, p, func(*Place) { t.Error("a task that was taken away runs") })
		p.NotifyNotFull(func() { waiting <- struct{}{} })
		if _, taken := p.TakeOldest(always); !taken {
			t.Fatal("nothing to take")
		}
		if !p.Full() || len(waiting) > 0 {
			t.Error("four tasks on four places are not full")
		}
		// Now one that waits for a place which is not held any more.
		if err := p.Resize(0, 5); err != nil {
			t.Fatal(err)
		}
		receive(t, waiting) // by Resize: nothing waits
		p.NotifyNotFull(func() { waiting <- struct{}{} })
		p.mu.Lock()
		p.todo.push(func(*Place) { t.Error("a task that was taken away runs") }) // nobody has been sent for it yet
		p.publish()
		p.mu.Unlock()
		if !p.Full() {
			t.Error("five tasks and five places are not full")
		}
		if _, taken := p.TakeOldest(always); !taken {
			t.Fatal("nothing to take")
		}
		receive(t, waiting)
		letGo(append(held, last))
		shutdown(t, p)
	})
}

// Each task is either served or taken, once, whoever is faster.
func TestTakeOldestRacesWithPlaces(t *testing.T) {
	const tasks = 20_000
	var seen [tasks]atomic.Int32
	p, err := New(Options{Max: 2}, func(_ *Place, i int) { seen[i].Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	var takers sync.WaitGroup
	var submitted atomic.Bool
	var taken atomic.Int32
	for range 2 {
		takers.Go(func() {
			for {
				last := submitted.Load()
				i, ok := p.TakeOldest(func(i int) bool { return i%3 == 0 })
				if ok {
					seen[i].Add(1)
					taken.Add(1)
				} else if last {
					return
				}
			}
		})
	}
	for i := range tasks {
		submit(t, p, i)
	}
	submitted.Store(true)
	takers.Wait()
	shutdown(t, p)
	for i := range seen {
		if n := seen[i].Load(); n != 1 {
			t.Fatalf("task %d was seen %d times", i, n)
		}
	}
	t.Logf("%d of %d taken", taken.Load(), tasks)
}
