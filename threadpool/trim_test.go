package threadpool

import (
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// letGo ends the tasks and waits until their goroutines rest.
func letGo(held []*holder) {
	for _, h := range held {
		close(h.release)
	}
	synctest.Wait()
}

func expectThreads(t *testing.T, p *funcPool, want int) {
	t.Helper()
	synctest.Wait()
	checkInvariants(t, p)
	if s := p.Stats(); s.Running != want || p.ants.Running() != want {
		t.Errorf("Running = %d with %d goroutines, want %d", s.Running, p.ants.Running(), want)
	}
}

func TestMinIsStartedAtOnce(t *testing.T) {
	for range 50 {
		p := newFuncPool(t, Options{Min: 7, Max: 9})
		if n := p.ants.Running(); n != 7 {
			t.Fatalf("%d goroutines, want 7", n)
		}
		if s := p.Stats(); s.Running != 7 || s.Waiting != 7 || s.Spawned != 7 || s.PoolCapacity != 9 {
			t.Fatalf("%+v, want 7 waiting", s)
		}
		shutdown(t, p)
	}
}

func TestTrim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFuncPool(t, Options{Min: 2, Max: 10})
		held := hold(t, p, 10)
		for _, h := range held {
			pl := <-h.place
			pl.Local = "scratch"
		}
		letGo(held)
		expectThreads(t, p, 10)

		elapse(defaultAutoTrimTime) // all ten were needed in this interval
		expectThreads(t, p, 10)
		letGo(hold(t, p, 4)) // four in the next one
		elapse(defaultAutoTrimTime)
		expectThreads(t, p, 4)
		elapse(defaultAutoTrimTime)
		expectThreads(t, p, 2) // Min
		if s := p.Stats(); s.Trimmed != 8 {
			t.Errorf("%+v, want 8 trimmed", s)
		}

		// The first two kept their Local, those made anew have none.
		held = hold(t, p, 10)
		kept := 0
		for _, h := range held {
			if pl := <-h.place; pl.Local != nil {
				kept++
			}
		}
		if kept != 2 {
			t.Errorf("%d places kept their Local, want 2", kept)
		}
		letGo(held)
		shutdown(t, p)
	})
}

func TestTrimKeepsBusyAndWarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFuncPool(t, Options{Max: 8, AutoTrimTime: time.Minute})
		held := hold(t, p, 8)
		busy := <-held[5].place
		letGo(append(held[:5:5], held[6:]...))
		elapse(10 * time.Minute)
		expectThreads(t, p, 1)
		if p.places[5] != busy {
			t.Error("the busy place was trimmed")
		}
		letGo(held[5:6])
		elapse(10 * time.Minute)
		expectThreads(t, p, 0)
		shutdown(t, p)
	})
}

func TestTrimNever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFuncPool(t, Options{Max: 3, AutoTrimTime: -1})
		letGo(hold(t, p, 3))
		elapse(24 * time.Hour)
		expectThreads(t, p, 3)
		shutdown(t, p)
	})
}

// The timers must not wake an idle process.
func TestTimersRunOnlyWhenNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFuncPool(t, Options{Min: 1, Max: 3})
		armed := func(trim, window bool) {
			t.Helper()
			synctest.Wait()
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.trimArmed != trim || p.windowArmed != window {
				t.Errorf("trim timer %v, window timer %v; want %v, %v", p.trimArmed, p.windowArmed, trim, window)
			}
		}
		armed(false, false)
		letGo(hold(t, p, 1))
		armed(false, true)
		letGo(hold(t, p, 3))
		armed(true, true)
		elapse(2*defaultAutoTrimTime + time.Second)
		armed(false, false)
		shutdown(t, p)
	})
}

// When ants was made to start a goroutine too many, trim ends it and no other.
func TestTrimEndsSpareGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFuncPool(t, Options{Min: 3, Max: 3})
		p.startGoroutines(5)
		synctest.Wait()
		if n := p.ants.Running(); n != 5 {
			t.Fatalf("%d goroutines, want 5", n)
		}
		letGo(hold(t, p, 1)) // a processor that gives its place back notices
		elapse(defaultAutoTrimTime)
		expectThreads(t, p, 3)
		shutdown(t, p)
	})
}

func TestResizeRefuses(t *testing.T) {
	p := newFuncPool(t, Options{Min: 1, Max: 2})
	for _, test := range []struct {
		min, max int
		want     string
	}{{0, 0, "Max is 0"}, {-1, 3, "Min is -1"}, {4, 3, "Min is 4"}} {
		if err := p.Resize(test.min, test.max); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("Resize(%d, %d) = %v, want an error with %q", test.min, test.max, err, test.want)
		}
	}
	if s := p.Stats(); s.MinThreads != 1 || s.MaxThreads != 2 {
		t.Errorf("%+v, want no change", s)
	}
	shutdown(t, p)
}

func TestResizeUpStartsQueuedTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFuncPool(t, Options{Max: 1})
		held := hold(t, p, 1)
		for range 5 {
			h := newHolder()
			submit(t, p, h.task)
			held = append(held, h)
		}
		if err := p.Resize(0, 4); err != nil {
			t.Fatal(err)
		}
		for _, h := range held[1:4] {
			receive(t, h.place)
		}
		expectThreads(t, p, 4)
		if s := p.Stats(); s.Backlog != 2 || s.MaxThreads != 4 || s.Busy != 6 {
			t.Errorf("%+v, want 2 queued", s)
		}
		letGo(held)
		shutdown(t, p)
	})
}

func TestResizeMinStartsGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFuncPool(t, Options{Min: 1, Max: 3})
		held := hold(t, p, 2)
		if err := p.Resize(6, 8); err != nil {
			t.Fatal(err)
		}
		expectThreads(t, p, 6)
		letGo(held)
		expectThreads(t, p, 6)
		elapse(time.Hour)
		expectThreads(t, p, 6)
		if err := p.Resize(2, 8); err != nil {
			t.Fatal(err)
		}
		elapse(2 * defaultAutoTrimTime)
		expectThreads(t, p, 2)
		shutdown(t, p)
	})
}

func TestResizeDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFuncPool(t, Options{Min: 1, Max: 8})
		held := hold(t, p, 8)
		byIndex := make([]*holder, 8)
		for _, h := range held {
			byIndex[(<-h.place).Index] = h
		}
		letGo(byIndex[4:6]) // two rest, six are busy
		queued := newHolder()
		if err := p.Resize(1, 2); err != nil {
			t.Fatal(err)
		}
		expectThreads(t, p, 6) // the resting ones are gone
		submit(t, p, queued.task)
		letGo(byIndex[2:4])
		letGo(byIndex[6:])
		expectThreads(t, p, 2) // as are the busy ones with an index of 2 and more
		if n := p.Backlog(); n != 1 {
			t.Errorf("Backlog = %d: more than Max run", n)
		}
		if s := p.Stats(); s.PoolCapacity != 0 || !p.Full() {
			t.Errorf("%+v, want a full pool", s)
		}
		letGo(byIndex[:1])
		if pl := receive(t, queued.place); pl.Index != 0 {
			t.Errorf("place %d used, want 0", pl.Index)
		}
		letGo(append(byIndex[1:2], queued))
		expectThreads(t, p, 2)
		if s := p.Stats(); s.Trimmed != 6 {
			t.Errorf("%+v, want 6 trimmed", s)
		}
		shutdown(t, p)
	})
}

// A low index that is at rest must be used although a high one is still busy.
func TestResizeDownUsesLowPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFuncPool(t, Options{Max: 4})
		held := hold(t, p, 4)
		byIndex := make([]*holder, 4)
		for _, h := range held {
			byIndex[(<-h.place).Index] = h
		}
		letGo(byIndex[:3])
		if err := p.Resize(2, 2); err != nil {
			t.Fatal(err)
		}
		expectThreads(t, p, 3)
		next := hold(t, p, 1)[0]
		if pl := <-next.place; pl.Index > 1 {
			t.Errorf("place %d used, want 0 or 1", pl.Index)
		}
		letGo([]*holder{byIndex[3], next})
		expectThreads(t, p, 2)
		shutdown(t, p)
	})
}

// ants itself must keep its count when a task or a token ends the goroutine by Goexit: trim depends on it.
func TestEndIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFuncPool(t, Options{Min: 5, Max: 5})
		before := runtime.NumGoroutine()
		p.endIdle(3)
		synctest.Wait()
		if n := p.ants.Running(); n != 2 || before-runtime.NumGoroutine() != 3 {
			t.Errorf("ants counts %d goroutines and %d have ended, want 2 and 3", n, before-runtime.NumGoroutine())
		}
		// Places without a goroutine get one as soon as they are needed.
		letGo(hold(t, p, 5))
		if n := p.ants.Running(); n != 5 {
			t.Errorf("%d goroutines, want 5", n)
		}
		shutdown(t, p)
	})
}
