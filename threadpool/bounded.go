package threadpool

import "errors"

// ErrFull is returned by TrySubmit when as many tasks wait as the caller allows.
var ErrFull = errors.New("threadpool: as many tasks wait as may")

// TrySubmit is Submit for a caller who bounds the todo: the error is ErrFull when so many tasks wait already for whom
// there is no place. A burst of tasks that only waits until goroutines have come for it is not counted, because there is
// a place for each of them; so waiting is not the same as Backlog while places are free. A task that submits another
// one still counts with its own place. ErrShutdown as from Submit.
func (p *ThreadPool[T]) TrySubmit(t T, waiting int) error {
	p.mu.Lock()
	if p.shutdown {
		p.mu.Unlock()
		return ErrShutdown
	}
	if p.busy+p.todo.size-p.max >= waiting {
		p.mu.Unlock()
		return ErrFull
	}
	next := p.add(t)
	p.mu.Unlock()
	p.invoke(next)
	return nil
}

// TakeOldest takes the task that has waited longest out of the todo if take says so, and gives it to the caller in
// place of a processor: for tasks whose time is over while all places are busy, be it for ever. It reports false when
// the todo is empty or take declines. With a take that always declines it is a look at the oldest task.
//
// take is called with the pool's mutex held, and may neither call the pool nor wait. A hook of NotifyNotFull may run on
// the caller's goroutine.
func (p *ThreadPool[T]) TakeOldest(take func(T) bool) (t T, taken bool) {
	p.mu.Lock()
	if p.todo.size == 0 || !take(p.todo.oldest()) {
		p.mu.Unlock()
		return t, false
	}
	t = p.todo.pop()
	notFull := p.stepNotFull()
	p.publish()
	p.mu.Unlock()
	// Nobody else has to be told: while the todo was not empty a processor was active, and what it finds now, even if
	// that is the end of a pool that shuts down, it finds by itself.
	p.call(notFull)
	return t, true
}
