package threadpool

// Stats is what the pool is doing at one moment: all fields are of the same instant. The names are Puma's where it has
// the field (thread_pool.rb:144-174).
type Stats struct {
	Backlog    int // tasks in the todo
	BacklogMax int // highest Backlog in the current and the previous Options.Window
	Running    int // goroutines that count against Max, busy or waiting; Puma counts detached ones here as well
	Waiting    int // those of them without a task, whether resting or on their way to the todo
	Busy       int // Running - Waiting + Backlog (Puma: busy_threads); exceeds MaxThreads when tasks queue up
	// PoolCapacity is how many tasks could start now: Waiting + MaxThreads - Running, not below 0.
	PoolCapacity int
	MaxThreads   int
	MinThreads   int
	Detached     int // goroutines taken out of the count by Detach (Puma: io_threads)

	// These only grow.
	Panics  uint64 // panics that escaped process or a hook
	Spawned uint64 // places made, each with a goroutine
	Trimmed uint64 // goroutines ended because they were not needed, or not allowed any more by Resize
	Reaped  uint64 // goroutines ended by their task with runtime.Goexit
}

// Stats returns the present state. Reading changes nothing: unlike in Puma, whose backlog_max starts again at each
// read, any number of readers see the same.
func (p *ThreadPool[T]) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{
		Backlog:      p.todo.size,
		BacklogMax:   max(p.backlogHigh, p.backlogHighPrev),
		Running:      p.running,
		Waiting:      p.running - p.busy,
		Busy:         p.busy + p.todo.size,
		PoolCapacity: max(0, p.max-p.busy),
		MaxThreads:   p.max,
		MinThreads:   p.min,
		Detached:     p.detached,
		Panics:       p.panics.Load(),
		Spawned:      p.spawned,
		Trimmed:      p.trimmed,
		Reaped:       p.reaped,
	}
}

// raiseBacklogMax notes a new highest backlog. Windows are ended by a timer and not by comparing times, so that Submit
// reads no clock; it runs only while there is something to forget. The mutex is held.
func (p *ThreadPool[T]) raiseBacklogMax(n int) {
	p.backlogHigh = n
	if !p.windowArmed {
		p.windowArmed = true
		p.windowTimer.Reset(p.window)
	}
}

// rollWindow starts the next window.
func (p *ThreadPool[T]) rollWindow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.backlogHighPrev, p.backlogHigh = p.backlogHigh, p.todo.size
	p.windowArmed = !p.shutdown && (p.backlogHighPrev > 0 || p.backlogHigh > 0)
	if p.windowArmed {
		p.windowTimer.Reset(p.window)
	}
}
