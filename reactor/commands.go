package reactor

// What other goroutines have the reactor's do.

// Do runs f on the reactor's goroutine, soon, or returns ErrStopped.
func (r *Reactor[T]) Do(f func()) error {
	r.commands.Lock()
	if r.commands.closed {
		r.commands.Unlock()
		return ErrStopped
	}
	r.commands.list = append(r.commands.list, f)
	r.commands.pending.Store(true)
	r.commands.Unlock()
	r.wake()
	return nil
}

// Stop makes Run return after its present batch. Descriptors stay open.
func (r *Reactor[T]) Stop() { _ = r.Do(func() { r.stopping = true }) }

// takeCommands takes what other goroutines want to be done.
func (r *Reactor[T]) takeCommands() []func() {
	if !r.commands.pending.Load() {
		return nil
	}
	r.commands.Lock()
	defer r.commands.Unlock()
	list := r.commands.list
	r.commands.list = nil
	r.commands.pending.Store(false)
	return list
}

func obey(commands []func()) {
	for _, command := range commands {
		command()
	}
}

func (r *Reactor[T]) shut() {
	r.commands.Lock()
	r.commands.closed = true
	r.commands.Unlock()
	obey(r.takeCommands()) // nobody who was told that his command will run is left waiting
	r.poller.Close()
}
