package threadpool

const (
	// todoMinimum is the number of slots of a new ring: one batch of the reactor.
	todoMinimum = 64
	// todoKept is the number of slots an empty ring may keep. A larger one was grown by a burst and is given back,
	// so that a bad minute does not hold memory for the rest of the worker's life.
	todoKept = 1024
)

// todo is an unbounded FIFO queue: a ring whose length is a power of two. The zero value is empty and ready.
type todo[T any] struct {
	ring []T
	head int // slot of the oldest task
	size int
}

// push appends t and returns the new size.
func (q *todo[T]) push(t T) int {
	if q.size == len(q.ring) {
		q.grow()
	}
	q.ring[(q.head+q.size)&(len(q.ring)-1)] = t
	q.size++
	return q.size
}

// oldest returns the task that pop would take. The queue must not be empty.
func (q *todo[T]) oldest() T { return q.ring[q.head] }

// pop takes the oldest task. The queue must not be empty.
func (q *todo[T]) pop() T {
	slot := &q.ring[q.head]
	t := *slot
	var zero T
	*slot = zero // or the ring would keep the task's memory alive
	q.head = (q.head + 1) & (len(q.ring) - 1)
	q.size--
	if q.size == 0 && len(q.ring) > todoKept {
		q.ring, q.head = nil, 0
	}
	return t
}

func (q *todo[T]) grow() {
	ring := make([]T, max(todoMinimum, 2*len(q.ring)))
	n := copy(ring, q.ring[q.head:])
	copy(ring[n:], q.ring[:q.head])
	q.ring, q.head = ring, 0
}
