// Package threadpool is Puma's thread pool with goroutines: a bounded number of them, each serving one task after
// another from one FIFO queue, the todo.
//
// The reactor and the accept gate call it, so [ThreadPool.Submit] never waits for a task: it appends to the todo and,
// when nobody is on the way to look at it, starts a processor. A processor (Puma's ProcessorThread) is a goroutine that
// holds a [Place], takes tasks until the todo is empty, gives the place back and rests. Package ants supplies the
// goroutines and keeps the resting ones with their grown stacks; how many there are, in which order tasks run and what
// is reported is decided here.
//
// Ownership: a task belongs to the pool from Submit until the process function is called with it, then to that
// function; or until [ThreadPool.TakeOldest] has given it back. A Place and its Local belong to the processor that holds
// it, and between two holders to the pool. The mutex guards everything else; no foreign code (ants, the process function,
// hooks) runs while it is held, but for the question that TakeOldest asks about the oldest task.
//
// Invariant: while the todo is not empty, either as many processors are active as Max allows, or at least one of the
// active ones has no task and is on its way to the todo. A processor that would be the last such one, and sees more than
// one task, starts a successor before it takes its own. So a burst of tasks that do not block is served by one or two
// processors and costs as many hand-overs, and when tasks block, all places are busy after a few microseconds. The Go
// scheduler keeps its spinning threads by the same rule (runtime/proc.go, "Worker thread parking/unparking").
package threadpool
