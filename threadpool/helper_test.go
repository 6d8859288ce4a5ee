package threadpool

import (
	"bytes"
	"context"
	"runtime"
	"testing"
	"time"
)

// func tasks make most tests plain to read: the pool runs what it is given.
type funcPool = ThreadPool[func(*Place)]

func newFuncPool(t testing.TB, o Options) *funcPool {
	t.Helper()
	p, err := New(o, func(pl *Place, f func(*Place)) { f(pl) })
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func submit[T any](t testing.TB, p *ThreadPool[T], task T) {
	t.Helper()
	if err := p.Submit(task); err != nil {
		t.Fatalf("Submit: %v", err)
	}
}

// shutdown ends the pool and looks for goroutines it left behind.
func shutdown[T any](t testing.TB, p *ThreadPool[T]) {
	t.Helper()
	if err := p.Shutdown(context.Background()); err != nil {
		t.Fatalf("Shutdown: %v", err)
	}
	checkInvariants(t, p)
	if n := p.ants.Running(); n != 0 {
		t.Errorf("%d goroutines after Shutdown", n)
	}
}

// holder is a task that says when it runs and then waits to be let go.
type holder struct {
	place   chan *Place
	release chan struct{}
}

func newHolder() *holder {
	return &holder{place: make(chan *Place, 1), release: make(chan struct{})}
}

func (h *holder) task(pl *Place) {
	h.place <- pl
	<-h.release
}

// hold submits n holders and returns when all of them run.
func hold(t testing.TB, p *funcPool, n int) []*holder {
	t.Helper()
	holders := make([]*holder, n)
	for i := range holders {
		holders[i] = newHolder()
		submit(t, p, holders[i].task)
	}
	for _, h := range holders {
		h.place <- receive(t, h.place) // leave it for the test
	}
	return holders
}

// receive fails the test when nothing comes. In a synctest bubble the minute costs nothing.
func receive[V any](t testing.TB, c <-chan V) V {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(time.Minute):
		buf := make([]byte, 1<<16)
		t.Fatalf("nothing received\n%s", buf[:runtime.Stack(buf, true)])
		panic("unreachable")
	}
}

// eventually yields until the condition holds: for counters that a goroutine writes just after the test heard of it.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("not so after a minute: %s", what)
		}
	}
}

// elapse lets time go by; only for synctest bubbles, where it costs nothing.
func elapse(d time.Duration) { <-time.After(d) }

// checkInvariants compares what is counted with what can be counted, at one moment.
func checkInvariants[T any](t testing.TB, p *ThreadPool[T]) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	places := 0
	for i, pl := range p.places {
		if pl == nil {
			continue
		}
		places++
		if pl.Index != i || pl.detached.Load() {
			t.Errorf("places[%d] has index %d, detached %v", i, pl.Index, pl.detached.Load())
		}
	}
	if p.running != places || p.running != p.active+len(p.free) {
		t.Errorf("running %d, but %d places, %d active, %d free", p.running, places, p.active, len(p.free))
	}
	for _, pl := range p.free {
		if p.places[pl.Index] != pl || pl.serving {
			t.Errorf("free place %d is not at rest", pl.Index)
		}
	}
	if p.busy < 0 || p.busy > p.active || p.detached < 0 {
		t.Errorf("busy %d, active %d, detached %d", p.busy, p.active, p.detached)
	}
	if p.todo.size > 0 && p.active < p.max && p.active == p.busy {
		t.Errorf("nobody on the way to %d tasks: active %d, max %d", p.todo.size, p.active, p.max)
	}
}

// checkStats checks what must hold between the fields of any Stats.
func checkStats(t testing.TB, s Stats) {
	t.Helper()
	if s.Waiting < 0 || s.Waiting > s.Running || s.Backlog < 0 || s.Backlog > s.BacklogMax ||
		s.Busy != s.Running-s.Waiting+s.Backlog ||
		s.PoolCapacity != max(0, s.Waiting+s.MaxThreads-s.Running) ||
		s.MinThreads > s.MaxThreads || s.Detached < 0 || uint64(s.Running) > s.Spawned {
		t.Errorf("inconsistent: %+v", s)
	}
}

// noGoroutineLeft waits until no goroutine of a pool exists in this process: neither workers nor ants' clock, which is
// told to end by Shutdown but not waited for. Importing ants starts a pool of its own with a clock, which stays.
func noGoroutineLeft(t testing.TB) {
	t.Helper()
	buf := make([]byte, 1<<20)
	eventually(t, "no goroutine left", func() bool {
		stacks := buf[:runtime.Stack(buf, true)]
		return bytes.Count(stacks, []byte("ants/v2.(*goWorkerWithFunc).run.func1(")) == 0 &&
			bytes.Count(stacks, []byte("ants/v2.(*poolCommon).ticktock(")) == 1
	})
}
