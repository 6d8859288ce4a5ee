package threadpool

import "sync"

// Resize changes the bounds of the pool while it runs (Puma: update_thread_pool_min_max, server.rb:760). Goroutines
// missing to minimum are started, resting ones beyond maximum end at once and busy ones after their task. The error
// names the bound that is wrong, and then nothing has changed, or is ErrShutdown.
func (p *ThreadPool[T]) Resize(minimum, maximum int) error {
	if err := checkBounds(minimum, maximum); err != nil {
		return err
	}
	p.mu.Lock()
	if p.shutdown {
		p.mu.Unlock()
		return ErrShutdown
	}
	load := p.busy + p.todo.size
	wasFull := load >= p.max
	p.setBounds(minimum, maximum)
	var notFull func()
	if wasFull && load < maximum {
		notFull, p.notFull = p.notFull, nil
	}

	kept := p.free[:0]
	for _, pl := range p.free {
		if pl.Index < maximum {
			kept = append(kept, pl)
		} else {
			p.removeFree(pl)
		}
	}
	ended := len(p.free) - len(kept)
	clear(p.free[len(kept):])
	p.free = kept

	wanted := 0
	if missing := p.missing(); missing > 0 {
		p.addFree(missing)
		wanted = p.running + p.detached
	}
	if p.running > minimum {
		p.armTrim()
	}
	next := p.wake()
	p.mu.Unlock()

	p.endIdle(ended)
	p.startGoroutines(wanted)
	p.invoke(next)
	p.call(notFull)
	return nil
}

// setBounds stores the bounds. The mutex is held.
func (p *ThreadPool[T]) setBounds(minimum, maximum int) {
	p.min, p.max = minimum, maximum
	p.publish()
	for len(p.places) < maximum {
		p.places = append(p.places, nil)
	}
}

// missing is the number of places to add so that there are min. It counts only those below max, because the others
// are leaving. The mutex is held.
func (p *ThreadPool[T]) missing() int {
	n := p.min
	for _, pl := range p.places[:p.max] {
		if pl != nil {
			n--
		}
	}
	return n
}

// addFree adds n places of resting goroutines, below those that are there and with the lowest index on top. The
// mutex is held.
func (p *ThreadPool[T]) addFree(n int) {
	free := make([]*Place, n, n+len(p.free))
	for i := range free {
		free[n-1-i] = p.newPlace()
	}
	p.free = append(free, p.free...)
}

// barrier is invoked to make ants start goroutines: ants starts one only when none is resting, so that those it has
// must be kept until there are enough.
type barrier struct {
	open   chan struct{}
	inside sync.WaitGroup
}

func (b *barrier) wait() {
	<-b.open
	b.inside.Done()
}

// startGoroutines brings the number of ants' goroutines up to wanted. The mutex must not be held.
func (p *ThreadPool[T]) startGoroutines(wanted int) {
	b := &barrier{open: make(chan struct{})}
	for p.ants.Running() < wanted {
		b.inside.Add(1)
		if err := p.ants.Invoke(b); err != nil { // Shutdown was faster
			b.inside.Done()
			break
		}
	}
	close(b.open)
	b.inside.Wait()
}

// endToken is invoked to end a resting goroutine, by runtime.Goexit in the task. Invoke(nil) would do as well today,
// but nil is ants' private signal of its own purge and no promise, while deferred calls run on Goexit by the rules of
// the language, and ants must survive it anyhow because tasks may do it. Both leave ants' count right, which it keeps
// in a deferred call. If no goroutine is resting, ants starts one for the token, and that one ends: so the number of
// goroutines is right in whichever order tokens and processors arrive.
type endToken struct{}

// endIdle ends n resting goroutines. The mutex must not be held.
func (p *ThreadPool[T]) endIdle(n int) {
	for range n {
		if err := p.ants.Invoke(endToken{}); err != nil {
			return // released: they end by themselves
		}
	}
}

// goroutinesToSpare is the number of goroutines that ants has beyond those that hold a place or are detached (see
// giveBack). Goroutines being started are missing in it and those about to end are still counted, so it may be wrong
// for a moment; ending one too many is repaired by ants, which starts goroutines on demand. The mutex is held.
func (p *ThreadPool[T]) goroutinesToSpare() int {
	return max(0, p.ants.Running()-p.running-p.detached)
}

// armTrim sees to it that trim is called one AutoTrimTime from now or earlier. The mutex is held.
func (p *ThreadPool[T]) armTrim() {
	if p.trimArmed || p.autoTrimTime < 0 || p.shutdown {
		return
	}
	p.trimArmed = true
	p.peak = p.active
	p.trimTimer.Reset(p.autoTrimTime)
}

// trim ends the goroutines above min that were not needed at any moment of the last AutoTrimTime, those that have been
// resting longest. Puma ends at most one per interval (thread_pool.rb:378), which after a burst to 64 takes half an
// hour; the peak of the interval says as safely how many are needed, and says it for all of them at once. The timer
// runs only while there is something to trim, so that it does not wake an idle worker (ants' clock does, twice a second).
func (p *ThreadPool[T]) trim() {
	p.mu.Lock()
	if p.shutdown {
		p.mu.Unlock()
		return
	}
	ended := p.goroutinesToSpare()
	n := min(p.running-max(p.peak, p.min), len(p.free))
	if n > 0 {
		for _, pl := range p.free[:n] {
			p.removeFree(pl)
		}
		kept := copy(p.free, p.free[n:])
		clear(p.free[kept:])
		p.free = p.free[:kept]
		ended += n
	}
	p.mu.Unlock()
	p.endIdle(ended)

	// Not before: trims that overtake one another would wait for ants' spin lock in growing numbers.
	p.mu.Lock()
	p.trimArmed = false
	if p.running > p.min {
		p.armTrim()
	}
	p.mu.Unlock()
}
