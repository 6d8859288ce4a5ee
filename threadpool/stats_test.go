package threadpool

import (
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFuncPool(t, Options{Min: 1, Max: 3})
		held := hold(t, p, 3)
		queued := []*holder{newHolder(), newHolder()}
		for _, h := range queued {
			submit(t, p, h.task)
		}
		want := Stats{
			Backlog: 2, BacklogMax: 3, Running: 3, Waiting: 0, Busy: 5, PoolCapacity: 0,
			MaxThreads: 3, MinThreads: 1, Spawned: 3,
		}
		got := p.Stats()
		if got.BacklogMax < 2 || got.BacklogMax > 3 { // of the first three, any number may have waited for a moment
			t.Errorf("BacklogMax = %d, want 2 or 3", got.BacklogMax)
		}
		got.BacklogMax = want.BacklogMax
		if got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		letGo(append(held[:2], queued...))
		got = p.Stats()
		got.BacklogMax = 0
		want = Stats{Running: 3, Waiting: 2, Busy: 1, PoolCapacity: 2, MaxThreads: 3, MinThreads: 1, Spawned: 3}
		if got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		letGo(held[2:])
		shutdown(t, p)
	})
}

func TestBacklogMaxForgetsByTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFuncPool(t, Options{Max: 1, Window: time.Second})
		expect := func(want int) {
			t.Helper()
			synctest.Wait()
			for range 2 { // reading does not change it
				if got := p.Stats().BacklogMax; got != want {
					t.Errorf("BacklogMax = %d, want %d", got, want)
				}
			}
		}
		burst := func(n int) {
			held := hold(t, p, 1)
			for range n {
				submit(t, p, func(*Place) {})
			}
			letGo(held)
		}
		expect(0)
		burst(30) // second 0
		expect(30)
		elapse(1500 * time.Millisecond)
		burst(7) // second 1
		expect(30)
		elapse(time.Second) // second 2
		expect(7)
		elapse(time.Second) // second 3
		expect(0)

		// A new high does not make its window longer.
		burst(3)
		elapse(900 * time.Millisecond)
		burst(4)
		elapse(1200 * time.Millisecond)
		expect(0)

		// A backlog that stays counts in each window.
		held := hold(t, p, 1)
		for range 5 {
			submit(t, p, func(*Place) {})
		}
		elapse(time.Minute)
		expect(5)
		letGo(held)
		expect(5)
		elapse(2 * time.Second)
		expect(0)
		shutdown(t, p)
	})
}

func TestNotifyNotFull(t *testing.T) {
	for _, test := range []struct {
		name    string
		notFull func(t *testing.T, p *funcPool, held []*holder)
	}{
		{"task ends", func(_ *testing.T, _ *funcPool, held []*holder) { letGo(held[:1]) }},
		{"Resize", func(t *testing.T, p *funcPool, _ []*holder) {
			if err := p.Resize(0, 3); err != nil {
				t.Error(err)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newFuncPool(t, Options{Max: 2})
				calls := 0
				notify := func() {
					if p.Full() {
						t.Error("called while full")
					}
					p.mu.Lock()
					calls++
					p.mu.Unlock()
				}
				p.NotifyNotFull(func() { t.Error("replaced, and called") })
				p.NotifyNotFull(notify)
				letGo(hold(t, p, 1))
				if calls != 0 {
					t.Errorf("%d calls although the pool was never full", calls)
				}
				held := hold(t, p, 2)
				extra := newHolder()
				submit(t, p, extra.task)
				close(extra.release)
				letGo(held[1:]) // the queued task takes the place, and then the pool is not full
				if calls != 1 {
					t.Errorf("%d calls after the pool was full, want 1", calls)
				}
				held = append(held[:1], hold(t, p, 1)...)
				letGo(held[1:])
				if calls != 1 {
					t.Errorf("%d calls, but armed once", calls)
				}

				held = append(held[:1], hold(t, p, 1)...)
				p.NotifyNotFull(notify)
				synctest.Wait()
				if calls != 1 {
					t.Errorf("%d calls while the pool is full", calls)
				}
				test.notFull(t, p, held)
				if calls != 2 {
					t.Errorf("%d calls, want 2", calls)
				}
				p.NotifyNotFull(notify)
				p.NotifyNotFull(nil)
				for _, h := range held {
					select {
					case <-h.release:
					default:
						close(h.release)
					}
				}
				shutdown(t, p)
				if calls != 2 {
					t.Errorf("called after it was disarmed")
				}
			})
		})
	}
}

func TestNotifyNotFullOnDetachAndGoexit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFuncPool(t, Options{Max: 1})
		for _, leave := range []func(*Place){p.Detach, func(*Place) { runtime.Goexit() }, func(*Place) { panic("boom") }} {
			notified := make(chan bool, 1)
			goOn := make(chan struct{})
			submit(t, p, func(pl *Place) {
				<-goOn
				leave(pl)
			})
			p.NotifyNotFull(func() { notified <- p.Full() })
			close(goOn)
			if receive(t, notified) {
				t.Error("called while full")
			}
		}
		shutdown(t, p)
	})
}

// A hook that fails must not take the next task with it.
func TestNotifyNotFullHookFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, hook := range []func(){func() { panic("boom") }, runtime.Goexit} {
			p := newFuncPool(t, Options{Max: 1})
			held := hold(t, p, 1)
			served := make(chan struct{})
			p.NotifyNotFull(func() {
				submit(t, p, func(*Place) { close(served) })
				hook()
			})
			letGo(held)
			receive(t, served)
			shutdown(t, p)
			if s := p.Stats(); s.Panics+s.Reaped != 1 {
				t.Errorf("%+v, want one panic or one reaped", s)
			}
		}
	})
}

// An accept gate as the server uses it: never more than Max tasks unfinished, and no wake-up lost. If one were, the
// gate would stay closed; in the bubble that shows at once.
func TestNotifyNotFullIsNotLost(t *testing.T) {
	for _, limit := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			const tasks = 20_000
			p := newFuncPool(t, Options{Max: limit})
			var unfinished, served atomic.Int64
			open := make(chan struct{}, 1)
			task := func(*Place) {
				if served.Add(1)%3 == 0 {
					runtime.Gosched()
				}
				unfinished.Add(-1)
			}
			for range tasks {
				for p.Full() {
					p.NotifyNotFull(func() {
						select {
						case open <- struct{}{}:
						default:
						}
					})
					if p.Full() {
						receive(t, open)
					}
				}
				if n := unfinished.Add(1); n > int64(limit) {
					t.Fatalf("%d tasks let in, want at most %d", n, limit)
				}
				submit(t, p, task)
			}
			shutdown(t, p)
			if n := served.Load(); n != tasks {
				t.Errorf("%d served, want %d", n, tasks)
			}
		})
	}
}
