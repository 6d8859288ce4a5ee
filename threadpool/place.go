package threadpool

import "sync/atomic"

// Place is the right to process one task at a time, with what its holder wants to keep from task to task. A pool has
// at most Max of them. No two goroutines ever hold the same *Place.
type Place struct {
	// Index, which is not to be changed, is between 0 and Max-1 and differs between all places that count against Max. A detached place keeps its
	// index, and the pool may meanwhile use a fresh Place with that index.
	Index int
	// Local belongs to the process function, for scratch buffers and the like. It persists while the place lives: it
	// is nil again after the place was trimmed or its goroutine ended.
	Local any

	// The holder writes these under the pool's mutex.
	serving  bool // between taking a task and looking for the next one, and not detached
	detached atomic.Bool
	turns    uint // tasks since the holder last rested; read and written by the holder only
}

// Continues reports whether the holder comes straight from its last task: it did not rest and let no one else run in
// between, so that a time read at the end of that task is still right. For the process function.
func (pl *Place) Continues() bool { return pl.turns%turnsPerYield != 0 }

// Detached reports whether [ThreadPool.Detach] was called for the present task.
func (pl *Place) Detached() bool { return pl.detached.Load() }

// Detach takes the goroutine that holds pl out of the count: the task it serves no longer counts against Max, and
// another processor may start at once (Puma: mark_as_io_bound, thread_pool.rb:38). It is for tasks that outlive a
// request (hijacked connections) or only wait for others. When the task ends, the goroutine takes its old place again
// if that is still free and there is room; otherwise it ends, and pl.Local is dropped (thread_pool.rb:208).
//
// Detach may be called by any goroutine, with the place that process was given, if process does not return before it
// has. A second call has no effect.
func (p *ThreadPool[T]) Detach(pl *Place) {
	p.mu.Lock()
	if !pl.serving {
		p.mu.Unlock()
		return
	}
	pl.detached.Store(true)
	notFull := p.finishTask(pl)
	p.detached++
	p.removePlace(pl)
	next := p.wake()
	p.publish()
	p.mu.Unlock()
	p.call(notFull)
	p.invoke(next)
}

// rejoin makes a detached place, whose task has ended, count against Max again; false when there is no room. The
// mutex is held.
func (p *ThreadPool[T]) rejoin(pl *Place) bool {
	p.detached--
	if pl.Index >= p.max || p.active >= p.max || p.places[pl.Index] != nil {
		return false
	}
	pl.detached.Store(false)
	p.places[pl.Index] = pl
	p.running++
	p.activate()
	return true
}

// takePlace returns a place for a processor about to start: the one given back last, because its Local is the most
// likely to be in the cache, or else a new one with the lowest index. The caller has checked that active < max, so
// that there is one, and holds the mutex.
func (p *ThreadPool[T]) takePlace() *Place {
	var pl *Place
	if last := len(p.free) - 1; last >= 0 {
		pl = p.free[last]
		p.free[last] = nil
		p.free = p.free[:last]
	} else {
		pl = p.newPlace()
	}
	p.activate()
	return pl
}

// activate counts one more active processor. The mutex is held.
func (p *ThreadPool[T]) activate() {
	p.active++
	p.peak = max(p.peak, p.active)
	if p.running > p.min {
		p.armTrim()
	}
}

// newPlace makes the place with the lowest unused index below max. The mutex is held.
func (p *ThreadPool[T]) newPlace() *Place {
	index := 0
	for p.places[index] != nil {
		index++
	}
	pl := &Place{Index: index}
	p.places[index] = pl
	p.running++
	p.spawned++
	return pl
}

// removePlace takes the place of an active processor out of the pool. The mutex is held.
func (p *ThreadPool[T]) removePlace(pl *Place) {
	p.places[pl.Index] = nil
	p.running--
	p.active--
}

// removeFree takes a resting place out of the pool. Its goroutine has to be ended by endIdle. The mutex is held.
func (p *ThreadPool[T]) removeFree(pl *Place) {
	p.places[pl.Index] = nil
	p.running--
	p.trimmed++
}
