package threadpool

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/ants/v2"
)

// ErrShutdown is returned by Submit and Resize once Shutdown has begun (Puma raises "Unable to add work while
// shutting down", thread_pool.rb:349).
var ErrShutdown = errors.New("threadpool: shutting down")

const (
	defaultAutoTrimTime = 30 * time.Second // Puma: auto_trim_time
	defaultWindow       = 10 * time.Second
)

// Options configure a ThreadPool.
type Options struct {
	// Min and Max bound the number of goroutines: Min are started by New and never trimmed, Max is never exceeded by
	// tasks that are not detached. Max >= 1, 0 <= Min <= Max.
	Min, Max int
	// AutoTrimTime is how often resting goroutines above Min are looked at and ended. 0 means 30 s, negative never.
	AutoTrimTime time.Duration
	// OnPanic is told of a panic that escaped the process function (or NotifyNotFull's), with the stack of the
	// goroutine. It runs on that goroutine, which then goes on to the next task. With or without it, Stats.Panics
	// counts. It must not block; a panic of its own is counted and dropped.
	OnPanic func(v any, stack []byte)
	// Window is how long Stats.BacklogMax remembers: at least one and at most two windows. 0 means 10 s.
	Window time.Duration
	// Busy, when set, always has the number of tasks that run or wait, as
	// [Stats.Busy]: for other processes, which cannot ask.
	Busy *atomic.Int64
}

// ThreadPool runs a process function for each submitted task on a bounded number of goroutines, in the order of
// submission. All methods may be called by several goroutines at once.
type ThreadPool[T any] struct {
	process      func(*Place, T)
	onPanic      func(any, []byte)
	autoTrimTime time.Duration
	window       time.Duration
	ants         *ants.PoolWithFunc

	// load is what readers without the mutex see: loadWaiting and loadFull as of the last unlock.
	load  atomic.Uint32
	gauge *atomic.Int64 // Options.Busy

	panics  atomic.Uint64
	drained chan struct{} // closed once shut down, idle, and ants is released

	mu        sync.Mutex // guards what follows
	published uint32     // what load is
	todo      todo[T]
	min, max  int
	active    int // places held by a processor, or promised to one that is starting
	busy      int // those of them whose processor has a task in hand; the others are on their way to the todo
	detached  int // goroutines that Detach took out of the count
	shutdown  bool
	notFull   func() // NotifyNotFull's, nil when not armed

	places  []*Place // by index, nil if there is none; at least max long
	free    []*Place // places of resting goroutines, the one given back last at the end
	running int      // places that exist: active + len(free)

	peak      int // highest active since the last trim
	trimTimer *time.Timer
	trimArmed bool

	backlogHigh     int // highest backlog in the current window
	backlogHighPrev int // and in the one before
	windowTimer     *time.Timer
	windowArmed     bool

	spawned, trimmed, reaped uint64
}

// New returns a pool of o.Min resting goroutines that will call process for each task. The error names the option that
// is out of bounds. The caller ends the pool with Shutdown.
func New[T any](o Options, process func(*Place, T)) (*ThreadPool[T], error) {
	if process == nil {
		return nil, errors.New("threadpool: process is nil")
	}
	if err := checkBounds(o.Min, o.Max); err != nil {
		return nil, err
	}
	if o.Window < 0 {
		return nil, fmt.Errorf("threadpool: Window is %v, want 0 or more", o.Window)
	}
	if o.AutoTrimTime == 0 {
		o.AutoTrimTime = defaultAutoTrimTime
	}
	if o.Window == 0 {
		o.Window = defaultWindow
	}
	p := &ThreadPool[T]{
		process:      process,
		onPanic:      o.OnPanic,
		autoTrimTime: o.AutoTrimTime,
		window:       o.Window,
		gauge:        o.Busy,
		drained:      make(chan struct{}),
	}
	// Size 0 is unlimited: a capacity at ants' level would make Invoke fail or wait, and the bound is kept here.
	// Purging is off because ants' clock for it is not ours (see trim).
	var err error
	p.ants, err = ants.NewPoolWithFunc(0, p.run, ants.WithNonblocking(true), ants.WithDisablePurge(true))
	if err != nil {
		return nil, fmt.Errorf("threadpool: starting ants: %w", err)
	}
	p.trimTimer = stoppedTimer(p.trim)
	p.windowTimer = stoppedTimer(p.rollWindow)

	p.mu.Lock()
	p.setBounds(o.Min, o.Max)
	p.addFree(o.Min)
	p.mu.Unlock()
	p.startGoroutines(o.Min)
	return p, nil
}

func checkBounds(minimum, maximum int) error {
	if maximum < 1 {
		return fmt.Errorf("threadpool: Max is %d, want 1 or more", maximum)
	}
	if minimum < 0 || minimum > maximum {
		return fmt.Errorf("threadpool: Min is %d, want 0 to Max (%d)", minimum, maximum)
	}
	return nil
}

// stoppedTimer returns a timer that will call f once it is reset.
func stoppedTimer(f func()) *time.Timer {
	t := time.AfterFunc(time.Hour, f)
	t.Stop()
	return t
}

// Submit appends t to the todo. It never waits for a task to end and costs some tens of nanoseconds, plus a wake-up for
// the first task of a burst. (When the program was started with GOMAXPROCS=1 and the wake-up needs a new goroutine, the
// caller is rescheduled until that one has started.) The todo is not bounded: who must not let it grow uses TrySubmit,
// or asks Backlog or Full first. The error is ErrShutdown or nil.
func (p *ThreadPool[T]) Submit(t T) error {
	p.mu.Lock()
	if p.shutdown {
		p.mu.Unlock()
		return ErrShutdown
	}
	next := p.add(t)
	p.mu.Unlock()
	p.invoke(next)
	return nil
}

// add appends t to the todo, and returns the place for whom a processor has to be invoked. The mutex is held.
func (p *ThreadPool[T]) add(t T) *Place {
	if n := p.todo.push(t); n > p.backlogHigh {
		p.raiseBacklogMax(n)
	}
	next := p.wake()
	p.publish()
	return next
}

// Backlog returns the number of tasks that no goroutine has taken yet.
func (p *ThreadPool[T]) Backlog() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.todo.size
}

// HasBacklog reports whether there is a task that no goroutine has taken yet. It takes no lock.
func (p *ThreadPool[T]) HasBacklog() bool { return p.load.Load()&loadWaiting != 0 }

// Full reports whether as many tasks are running or waiting as there are places: Puma's condition of
// wait_until_not_full (thread_pool.rb:318). Detached tasks do not count. It takes no lock.
func (p *ThreadPool[T]) Full() bool { return p.load.Load()&loadFull != 0 }

// Last reports whether one task runs and none waits: for the task that ends, whether it is the last one for now.
func (p *ThreadPool[T]) Last() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.busy == 1 && p.todo.size == 0
}

// NotifyNotFull arms f: it is called once, the next time the pool goes from full to not full, and is then forgotten.
// There is one slot: a second call replaces f, and nil disarms. f runs on a goroutine of the pool (or on that of
// Resize, Detach or TakeOldest), without locks. It must not block: that goroutine is on its way to the todo, and as long
// as one is, no other is started.
//
// To wait without losing the moment, arm first and ask Full afterwards: if it says no, go on (and expect that f may
// still be called later); if it says yes, f will be called.
func (p *ThreadPool[T]) NotifyNotFull(f func()) {
	p.mu.Lock()
	p.notFull = f
	p.mu.Unlock()
}

// Shutdown refuses new tasks, lets the queued and running ones be served, detached ones included, and then ends all
// goroutines of the pool. When ctx ends first, the error wraps ctx.Err() and nothing is cut short: the pool goes on to
// drain and ends its goroutines by itself with the last task. So Shutdown may be called again, to wait longer once
// the tasks were told to hurry. It must not be called by a task, which it would wait for.
func (p *ThreadPool[T]) Shutdown(ctx context.Context) error {
	p.mu.Lock()
	first := !p.shutdown
	p.shutdown = true
	p.trimTimer.Stop()
	p.windowTimer.Stop()
	last := first && p.idle()
	p.mu.Unlock()
	if last {
		p.release()
	}

	select {
	case <-p.drained:
	case <-ctx.Done():
		s := p.Stats()
		return fmt.Errorf("threadpool: shutdown with %d tasks queued, %d running, %d detached: %w",
			s.Backlog, s.Running-s.Waiting, s.Detached, ctx.Err())
	}
	// The goroutines have been told to end and only have to be scheduled. ants' ReleaseContext would wait for them
	// too, but in a loop without a yield: with one processor that is 10 ms until the scheduler takes it away.
	for p.ants.Running() > 0 {
		runtime.Gosched()
	}
	return nil
}

// idle reports whether a pool that is shutting down has nothing left to do. It turns true exactly once, because
// nothing can be submitted any more; who makes it true calls release. The mutex is held.
func (p *ThreadPool[T]) idle() bool {
	return p.shutdown && p.active == 0 && p.detached == 0 && p.todo.size == 0
}

// release ends the resting goroutines and those of ants itself.
func (p *ThreadPool[T]) release() {
	p.ants.Release()
	close(p.drained)
}

// Bits of ThreadPool.load.
const (
	loadWaiting uint32 = 1 << iota // the todo is not empty
	loadFull                       // as many tasks are running or waiting as there are places
)

// publish shows readers without the mutex what has changed. Only what they ask is told, because it changes much less
// often than the numbers behind it, and storing for others to see costs as much as the rest of a hand-over. The mutex
// is held.
func (p *ThreadPool[T]) publish() {
	if p.gauge != nil {
		p.gauge.Store(int64(p.busy + p.todo.size))
	}
	load := uint32(0)
	if p.todo.size > 0 {
		load = loadWaiting
	}
	if p.busy+p.todo.size >= p.max {
		load |= loadFull
	}
	if load != p.published {
		p.published = load
		p.load.Store(load)
	}
}
