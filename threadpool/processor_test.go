package threadpool

import (
	"bytes"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Each task waits for all the others: all places must get going although only the first Submit finds nobody on the way.
func TestAllPlacesGetGoing(t *testing.T) {
	for range 200 {
		p := newFuncPool(t, Options{Max: 32})
		held := hold(t, p, 32)
		seen := map[int]bool{}
		for _, h := range held {
			seen[(<-h.place).Index] = true
			close(h.release)
		}
		if len(seen) != 32 || !seen[0] || !seen[31] {
			t.Fatalf("places %v, want 0 to 31", seen)
		}
		shutdown(t, p)
	}
}

// A burst that does not block must not wake everybody.
func TestBurstNeedsTwoPlaces(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	b := batch{done: make(chan struct{}, 1)}
	p, err := New(Options{Max: 32}, func(_ *Place, b *batch) { b.task() })
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{64, 1000} {
		for range 100 {
			b.left.Store(int64(size))
			for range size {
				submit(t, p, &b)
			}
			<-b.done
		}
	}
	// Two, and some slack because the runtime may take the processor away anywhere.
	if n := p.Stats().Spawned; n > 6 {
		t.Errorf("%d places used, want about 2", n)
	}
	shutdown(t, p)
}

func TestPlacesAreReusedLastInFirstOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFuncPool(t, Options{Min: 4, Max: 8})
		if s := p.Stats(); s.Running != 4 || s.Waiting != 4 {
			t.Errorf("%+v, want 4 waiting", s)
		}
		for range 3 {
			h := hold(t, p, 1)[0]
			if pl := <-h.place; pl.Index != 0 {
				t.Errorf("place %d used, want 0", pl.Index)
			}
			close(h.release)
			synctest.Wait()
		}
		held := hold(t, p, 3)
		last := <-held[1].place
		last.Local = "warm"
		for _, i := range []int{0, 2, 1} {
			close(held[i].release)
			synctest.Wait()
		}
		h := hold(t, p, 1)[0]
		if pl := <-h.place; pl != last || pl.Local != "warm" {
			t.Errorf("place %d with %v used, want the one given back last (%d)", pl.Index, pl.Local, last.Index)
		}
		close(h.release)
		shutdown(t, p)
	})
}

func TestPanic(t *testing.T) {
	type report struct {
		value any
		stack []byte
	}
	reports := make(chan report, 10)
	p := newFuncPool(t, Options{Max: 1, OnPanic: func(v any, stack []byte) {
		reports <- report{v, stack}
		if v == "and the hook" {
			panic("too")
		}
	}})
	places := make(chan *Place, 2)
	submit(t, p, func(pl *Place) { places <- pl; panicWith("boom") })
	submit(t, p, func(pl *Place) { places <- pl; panicWith("and the hook") })
	submit(t, p, func(pl *Place) { places <- pl })
	first := receive(t, places)
	for range 2 {
		if receive(t, places) != first {
			t.Error("the place did not survive the panic")
		}
	}
	if r := receive(t, reports); r.value != "boom" || !bytes.Contains(r.stack, []byte("panicWith")) {
		t.Errorf("OnPanic(%v, %s), want boom and the stack of the task", r.value, r.stack)
	}
	if r := receive(t, reports); r.value != "and the hook" {
		t.Errorf("OnPanic(%v)", r.value)
	}
	shutdown(t, p)
	if s := p.Stats(); s.Panics != 3 || s.Reaped != 0 || s.Spawned != 1 {
		t.Errorf("%+v, want 3 panics on one place", s)
	}
}

func panicWith(v any) { panic(v) }

func TestPanicIsCountedWithoutHook(t *testing.T) {
	p := newFuncPool(t, Options{Max: 1})
	for range 5 {
		submit(t, p, func(*Place) { panic("boom") })
	}
	shutdown(t, p)
	if n := p.Stats().Panics; n != 5 {
		t.Errorf("%d panics counted, want 5", n)
	}
}

func TestGoexit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFuncPool(t, Options{Min: 1, Max: 2})
		held := hold(t, p, 2)
		var served atomic.Int64
		for range 50 { // behind each that ends its goroutine, others wait
			submit(t, p, func(*Place) { runtime.Goexit() })
			submit(t, p, func(*Place) { served.Add(1) })
		}
		submit(t, p, func(pl *Place) {
			p.Detach(pl)
			runtime.Goexit()
		})
		close(held[0].release)
		synctest.Wait()
		if n := served.Load(); n != 50 {
			t.Errorf("%d tasks served, want 50", n)
		}
		s := p.Stats()
		if s.Reaped != 51 || s.Busy != 1 || s.Detached != 0 || s.Running != p.ants.Running() {
			t.Errorf("%+v with %d goroutines; want 51 reaped, 1 busy, as many goroutines as running", s, p.ants.Running())
		}
		checkStats(t, s)
		checkInvariants(t, p)
		close(held[1].release)
		shutdown(t, p)
	})
}

// The last task of a pool that shuts down may end its goroutine, too.
func TestGoexitDuringShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFuncPool(t, Options{Max: 1})
		submit(t, p, func(*Place) { runtime.Goexit() })
		submit(t, p, func(*Place) { runtime.Goexit() })
		shutdown(t, p)
		if n := p.Stats().Reaped; n != 2 {
			t.Errorf("%d reaped, want 2", n)
		}
	})
}

// A pool whose todo is never empty must let other goroutines run on one processor: the reactor, above all.
func TestFloodedPoolYields(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, limit := range []int{1, 4} {
		var served atomic.Int64
		var stop atomic.Bool
		p := newFuncPool(t, Options{Max: limit})
		var task func(*Place)
		task = func(*Place) {
			served.Add(1)
			if !stop.Load() {
				_ = p.Submit(task)
			}
		}
		for range 4 * limit {
			submit(t, p, task)
		}
		worst := int64(0)
		for range 100 {
			before := served.Load()
			runtime.Gosched() // all processors have their turn, and then this goroutine again
			worst = max(worst, served.Load()-before)
		}
		stop.Store(true)
		shutdown(t, p)
		if worst > int64(4*limit*turnsPerYield) {
			t.Errorf("Max %d: %d tasks before another goroutine ran, want at most %d per place", limit, worst, turnsPerYield)
		}
		if worst == 0 {
			t.Error("the pool was not flooded: the test shows nothing")
		}
	}
}

// All ways to end a task and to change the pool at once: every task is served exactly once and nothing is miscounted.
func TestEverythingAtOnce(t *testing.T) {
	const submitters, tasks = 4, 4000
	p := newFuncPool(t, Options{Min: 1, Max: 4, AutoTrimTime: time.Microsecond})
	served := make([]atomic.Int32, submitters*tasks)
	var work, other sync.WaitGroup
	for s := range submitters {
		work.Go(func() {
			random := rand.New(rand.NewPCG(uint64(s), 1))
			for i := range tasks {
				kind := random.IntN(20)
				submit(t, p, func(pl *Place) {
					served[s*tasks+i].Add(1)
					if pl.Local == nil {
						pl.Local = new(int)
					}
					*pl.Local.(*int)++
					switch kind {
					case 0:
						panic(kind)
					case 1:
						runtime.Goexit()
					case 2:
						p.Detach(pl)
						runtime.Gosched()
						*pl.Local.(*int)++
					case 3:
						p.Detach(pl)
						runtime.Goexit()
					case 4:
						p.Detach(pl)
						p.Detach(pl)
						panic(kind)
					case 5, 6:
						runtime.Gosched()
					}
				})
				if random.IntN(50) == 0 {
					runtime.Gosched()
				}
			}
		})
	}
	stop := make(chan struct{})
	other.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			checkInvariants(t, p)
			checkStats(t, p.Stats())
			if err := p.Resize(i%3, 2+i%7); err != nil {
				t.Error(err)
			}
			runtime.Gosched()
		}
	})
	work.Wait()
	close(stop)
	other.Wait()
	shutdown(t, p)
	for i := range served {
		if n := served[i].Load(); n != 1 {
			t.Errorf("task %d was served %d times", i, n)
		}
	}
	if s := p.Stats(); s.Detached != 0 || s.Busy != 0 || s.Backlog != 0 {
		t.Errorf("%+v, want all counters at rest", s)
	}
}
