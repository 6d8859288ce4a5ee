package threadpool

import (
	"runtime"
	"runtime/debug"
)

// turnsPerYield is how many tasks a processor serves before it lets other goroutines run.
const turnsPerYield = 64

// outcome is what a processor does after it has been at the todo.
type outcome int

const (
	serve outcome = iota // process the task
	rest                 // the todo is empty and the place given back: let ants keep the goroutine
	quit                 // the place is gone: end the goroutine
)

// wake decides whether a processor must be started, and if so returns its place for invoke. It is not needed while an
// active one is without a task, because that one is on its way to the todo. Whoever adds to the todo or lowers active
// calls it, with the mutex held.
func (p *ThreadPool[T]) wake() *Place {
	if p.todo.size == 0 || p.active > p.busy || p.active >= p.max {
		return nil
	}
	return p.takePlace()
}

// invoke starts a processor with place pl; nil does nothing. The mutex must not be held: when GOMAXPROCS was 1 at the
// start of the program, ants' channels have no buffer and the caller is parked until the goroutine receives. It
// always does, because a goroutine that ants hands out is new or on its way from ants' lock to its channel.
func (p *ThreadPool[T]) invoke(pl *Place) {
	if pl == nil {
		return
	}
	if err := p.ants.Invoke(pl); err != nil {
		// ants refuses when it is released, which needs active == 0, or is full, and it has no limit. A promised
		// place must never be lost, so do not depend on that.
		go p.processor(pl)
	}
}

// run is the function of all ants goroutines: what it does depends on what was invoked.
func (p *ThreadPool[T]) run(arg any) {
	switch arg := arg.(type) {
	case *Place:
		p.processor(arg)
	case *barrier:
		arg.wait()
	case endToken:
		runtime.Goexit()
	}
}

// processor serves tasks with place pl until the todo is empty.
func (p *ThreadPool[T]) processor(pl *Place) {
	pl.turns = 0
	returned := false
	defer func() {
		if !returned { // the task ended this goroutine by runtime.Goexit
			p.reap(pl)
		}
	}()
	out := serve
	for out == serve {
		out = p.serveTasks(pl)
	}
	returned = true
	if out == quit {
		runtime.Goexit() // runs ants' deferred accounting, unlike a return, which would put the goroutine on its stack
	}
}

// serveTasks is the loop of a processor. It returns serve after a task panicked, to be called again: so one deferred
// call guards many tasks.
func (p *ThreadPool[T]) serveTasks(pl *Place) outcome {
	defer p.recoverPanic()
	for {
		t, out := p.next(pl)
		if out != serve {
			return out
		}
		p.process(pl, t)
	}
}

// next ends the task that pl's holder has served, if any, and takes the next one.
func (p *ThreadPool[T]) next(pl *Place) (t T, out outcome) {
	p.mu.Lock()
	if pl.serving {
		notFull := p.finishTask(pl)
		pl.turns++
		if notFull != nil || pl.turns%turnsPerYield == 0 && p.todo.size > 0 {
			p.pause(notFull)
		}
		if p.onIdle != nil && p.busy == 0 && p.todo.size == 0 && !p.shutdown {
			p.publish()
			p.mu.Unlock()
			p.call(p.onIdle) // this processor is on its way to the todo: no other one is started
			p.mu.Lock()
		}
	}
	if pl.detached.Load() && !p.rejoin(pl) {
		p.unlockLast()
		return t, quit
	}
	for p.todo.size > 1 && p.active-p.busy == 1 && p.active < p.max {
		// Once this processor has a task nobody is on the way to the others: see to that first. First, because
		// invoke may park the caller, and a task already in hand would then be overtaken by all behind it. Again,
		// because the one that was started may have arrived meanwhile and counted on this one.
		successor := p.takePlace()
		p.mu.Unlock()
		p.invoke(successor)
		p.mu.Lock()
	}
	if pl.Index >= p.max { // Resize took this place away
		p.removePlace(pl)
		p.trimmed++
		next := p.wake()
		p.unlockLast()
		p.invoke(next)
		return t, quit
	}
	if p.todo.size == 0 {
		p.giveBack(pl)
		p.unlockLast()
		return t, rest
	}
	t = p.todo.pop()
	pl.serving = true
	p.busy++
	p.publish()
	p.mu.Unlock()
	return t, serve
}

// pause lets others run between two tasks, when no task is in hand that could be lost or delayed: the hook, and other
// goroutines. A goroutine that never blocks keeps its processor until the runtime takes it away after 10 ms. With
// GOMAXPROCS=1 the reactor, which fills the todo, would get its turn only then, and all clients whose requests are not
// in the todo yet would wait for those that are. The mutex is held, and released meanwhile.
func (p *ThreadPool[T]) pause(notFull func()) {
	p.publish()
	p.mu.Unlock()
	p.call(notFull)
	runtime.Gosched()
	p.mu.Lock()
}

// giveBack ends an active processor that found nothing to do. The mutex is held.
func (p *ThreadPool[T]) giveBack(pl *Place) {
	p.active--
	p.free = append(p.free, pl)
	// From here until ants has the goroutine back on its stack, a Submit makes ants start a new one. That leaves one
	// goroutine too many, rarely more, and trim ends it.
	if p.goroutinesToSpare() > 0 {
		p.armTrim()
	}
}

// finishTask counts the task in pl's hand as no longer running. It returns the hook to call if that made the pool not
// full. The mutex is held.
func (p *ThreadPool[T]) finishTask(pl *Place) (notFull func()) {
	pl.serving = false
	p.busy--
	return p.stepNotFull()
}

// stepNotFull is called when one task fewer is running or waiting. It returns the hook to call if that made the pool not
// full. The mutex is held.
func (p *ThreadPool[T]) stepNotFull() (notFull func()) {
	if p.notFull != nil && p.busy+p.todo.size == p.max-1 { // one step at a time: this is the step
		notFull, p.notFull = p.notFull, nil
	}
	return notFull
}

// unlockLast publishes and unlocks, and releases ants if the caller was the last one of a pool that is shut down.
func (p *ThreadPool[T]) unlockLast() {
	last := p.idle()
	p.publish()
	p.mu.Unlock()
	if last {
		p.release()
	}
}

// reap accounts for a processor whose goroutine is ending under it. Puma looks for such threads once per second
// (thread_pool.rb:390); here they report themselves. Its place is gone with it; a new one is made when a task needs it.
func (p *ThreadPool[T]) reap(pl *Place) {
	p.mu.Lock()
	var notFull func()
	if pl.serving {
		notFull = p.finishTask(pl)
	}
	p.reaped++
	if pl.detached.Load() {
		p.detached--
	} else {
		p.removePlace(pl)
	}
	next := p.wake()
	p.unlockLast()
	p.invoke(next)
	p.call(notFull)
}

// call calls a hook of the user; nil does nothing.
func (p *ThreadPool[T]) call(f func()) {
	if f == nil {
		return
	}
	defer p.recoverPanic()
	f()
}

// recoverPanic is deferred around foreign code: it ends a panic, counts it and tells OnPanic.
func (p *ThreadPool[T]) recoverPanic() {
	v := recover()
	if v == nil {
		return
	}
	p.panics.Add(1)
	if p.onPanic == nil {
		return
	}
	defer func() {
		if recover() != nil {
			p.panics.Add(1)
		}
	}()
	p.onPanic(v, debug.Stack())
}
