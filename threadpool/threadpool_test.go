package threadpool

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestNewNamesTheWrongOption(t *testing.T) {
	process := func(*Place, int) {}
	for _, test := range []struct {
		options Options
		process func(*Place, int)
		want    string
	}{
		{Options{}, process, "Max is 0"},
		{Options{Max: -3}, process, "Max is -3"},
		{Options{Min: -1, Max: 1}, process, "Min is -1"},
		{Options{Min: 3, Max: 2}, process, "Min is 3, want 0 to Max (2)"},
		{Options{Max: 1, Window: -time.Second}, process, "Window is -1s"},
		{Options{Max: 1}, nil, "process is nil"},
	} {
		p, err := New(test.options, test.process)
		if err == nil || p != nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("New(%+v) = %v, %v; want an error with %q", test.options, p, err, test.want)
		}
	}
}

func TestFIFO(t *testing.T) {
	const n = 10_000
	var got []int
	p, err := New(Options{Max: 1}, func(_ *Place, i int) { got = append(got, i) })
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		submit(t, p, i)
	}
	shutdown(t, p)
	if len(got) != n {
		t.Fatalf("%d tasks served, want %d", len(got), n)
	}
	for i, v := range got {
		if v != i {
			t.Fatalf("task %d came as number %d", v, i)
		}
	}
}

// Tasks must also start in order when there are several places.
func TestFIFOAcrossPlaces(t *testing.T) {
	p := newFuncPool(t, Options{Max: 3})
	held := hold(t, p, 3)
	started := make(chan int, 10)
	for i := range 10 {
		submit(t, p, func(*Place) { started <- i })
	}
	close(held[1].release) // one place serves them all
	for want := range 10 {
		if got := receive(t, started); got != want {
			t.Fatalf("task %d started, want %d", got, want)
		}
	}
	close(held[0].release)
	close(held[2].release)
	shutdown(t, p)
}

func TestNeverMoreThanMax(t *testing.T) {
	const limit, submitters, tasks = 4, 8, 3000
	var inside, served atomic.Int64
	var held [limit]atomic.Bool
	p := newFuncPool(t, Options{Max: limit})
	task := func(pl *Place) {
		if n := inside.Add(1); n > limit {
			t.Errorf("%d tasks at once, want at most %d", n, limit)
		}
		if !held[pl.Index].CompareAndSwap(false, true) {
			t.Errorf("place %d is held twice", pl.Index)
		}
		// Not synchronised: the race detector sees if a place has two holders.
		if pl.Local == nil {
			pl.Local = new(int)
		}
		*pl.Local.(*int)++
		served.Add(1)
		held[pl.Index].Store(false)
		inside.Add(-1)
	}
	var wg sync.WaitGroup
	for range submitters {
		wg.Go(func() {
			for range tasks {
				submit(t, p, task)
				checkStats(t, p.Stats())
			}
		})
	}
	wg.Wait()
	checkInvariants(t, p)
	shutdown(t, p)
	if got := served.Load(); got != submitters*tasks {
		t.Errorf("%d tasks served, want %d", got, submitters*tasks)
	}
	local := 0
	for _, pl := range p.free {
		if n, ok := pl.Local.(*int); ok { // nil if the place never had a task
			local += *n
		}
	}
	if local != submitters*tasks {
		t.Errorf("places counted %d tasks in their Local, want %d", local, submitters*tasks)
	}
	if n := p.Stats().Spawned; n > limit {
		t.Errorf("%d places made, want at most %d", n, limit)
	}
}

func TestBacklogAndFull(t *testing.T) {
	p := newFuncPool(t, Options{Max: 2})
	expect := func(backlog int, full bool) {
		t.Helper()
		if got := p.Backlog(); got != backlog {
			t.Errorf("Backlog = %d, want %d", got, backlog)
		}
		if got := p.Full(); got != full {
			t.Errorf("Full = %v, want %v", got, full)
		}
	}
	expect(0, false)
	first := hold(t, p, 1)[0]
	expect(0, false)
	second := hold(t, p, 1)[0]
	expect(0, true)
	third, fourth := newHolder(), newHolder()
	submit(t, p, third.task)
	submit(t, p, fourth.task)
	expect(2, true)

	close(first.release)
	receive(t, third.place)
	expect(1, true)
	close(third.release)
	receive(t, fourth.place)
	expect(0, true)
	close(second.release)
	eventually(t, "not full", func() bool { return !p.Full() })
	expect(0, false)
	close(fourth.release)
	shutdown(t, p)
	expect(0, false)
}

func TestShutdownDrains(t *testing.T) {
	p := newFuncPool(t, Options{Min: 2, Max: 2})
	held := hold(t, p, 2)
	var served atomic.Int64
	for range 100 {
		submit(t, p, func(*Place) { served.Add(1) })
	}
	done := make(chan error, 2)
	for range cap(done) { // callers do not disturb one another
		go func() { done <- p.Shutdown(context.Background()) }()
	}
	eventually(t, "Submit refused", func() bool { return errors.Is(p.Submit(func(*Place) {}), ErrShutdown) })
	select {
	case err := <-done:
		t.Fatalf("Shutdown = %v while tasks run", err)
	default:
	}
	if err := p.Resize(1, 9); !errors.Is(err, ErrShutdown) {
		t.Errorf("Resize = %v, want ErrShutdown", err)
	}
	close(held[0].release)
	close(held[1].release)
	for range cap(done) {
		if err := receive(t, done); err != nil {
			t.Errorf("Shutdown = %v", err)
		}
	}
	// Tasks submitted before "refused" was seen count as well.
	if n := served.Load(); n != 100 {
		t.Errorf("%d queued tasks served, want 100", n)
	}
	if err := p.Shutdown(context.Background()); err != nil {
		t.Errorf("Shutdown again = %v", err)
	}
	noGoroutineLeft(t)
}

func TestShutdownHonoursContext(t *testing.T) {
	p := newFuncPool(t, Options{Max: 1})
	held := hold(t, p, 1)[0]
	served := make(chan struct{})
	submit(t, p, func(*Place) { close(served) })

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := p.Shutdown(ctx)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "1 tasks queued, 1 running") {
		t.Errorf("Shutdown = %v, want what was left, wrapping Canceled", err)
	}
	if err := p.Submit(func(*Place) {}); !errors.Is(err, ErrShutdown) {
		t.Errorf("Submit = %v, want ErrShutdown", err)
	}

	// Nobody waits any more, and still the rest is served and the goroutines end.
	close(held.release)
	receive(t, served)
	noGoroutineLeft(t)
	shutdown(t, p)
}

func TestShutdownOfUnusedPool(t *testing.T) {
	for _, minimum := range []int{0, 5} {
		shutdown(t, newFuncPool(t, Options{Min: minimum, Max: 5}))
	}
	noGoroutineLeft(t)
}

func TestShutdownWaitsForDetached(t *testing.T) {
	p := newFuncPool(t, Options{Max: 1})
	detached := make(chan struct{})
	release := make(chan struct{})
	submit(t, p, func(pl *Place) {
		p.Detach(pl)
		close(detached)
		<-release
	})
	receive(t, detached)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := p.Shutdown(ctx); err == nil || !strings.Contains(err.Error(), "1 detached") {
		t.Errorf("Shutdown = %v while a detached task runs", err)
	}
	close(release)
	shutdown(t, p)
}

func TestSubmitDoesNotAllocate(t *testing.T) {
	p, err := New(Options{Max: 8}, func(_ *Place, b *batch) { b.task() })
	if err != nil {
		t.Fatal(err)
	}
	b := batch{done: make(chan struct{}, 1)}
	for _, size := range []int{1, 64} {
		allocations := testing.AllocsPerRun(1000, func() {
			b.left.Store(int64(size))
			for range size {
				_ = p.Submit(&b)
			}
			<-b.done
		})
		if allocations != 0 {
			t.Errorf("%v allocations for %d tasks, want 0", allocations, size)
		}
	}
	shutdown(t, p)
}
