package reactor

import (
	"math/bits"
	"time"
)

// The wheel has 1024 buckets; with the coarsest tick they span 131 s, which is
// beyond every default deadline. A later one is looked at early and put back.
const (
	wheelBuckets = 1024
	notLinked    = int64(-1)
	noNeighbour  = int32(-1)

	coarsestTick = 128 * time.Millisecond
	finestTick   = time.Millisecond
)

// wheel holds every slot in the bucket of the tick at which it is to be looked
// at. That is at or before its deadline, never after: a deadline that moves
// later, as that of a connection does with each request, only stores a number
// in the slot, and the wheel finds out when it looks. So a request costs no
// list operation and no message to the reactor, and each waiting client is
// visited about once per timeout.
//
// It is used by the reactor's goroutine alone.
type wheel[T any] struct {
	table   *table[T]
	width   int64 // nanoseconds of a tick
	heads   [wheelBuckets]int32
	used    [wheelBuckets / 64]uint64 // a bit for each bucket that is not empty
	current int64                     // the last tick that has been looked at
	linked  int
}

func (w *wheel[T]) init(t *table[T], width time.Duration) {
	w.table = t
	w.width = int64(min(max(width, finestTick), coarsestTick))
	for i := range w.heads {
		w.heads[i] = noNeighbour
	}
}

// tickOf rounds up, so that a deadline has passed when its tick comes, and
// keeps within the wheel.
func (w *wheel[T]) tickOf(deadline int64) int64 {
	tick := deadline / w.width
	if deadline%w.width > 0 { // adding to NoDeadline would overflow
		tick++
	}
	return min(max(tick, w.current+1), w.current+wheelBuckets-1)
}

func (w *wheel[T]) link(s *Slot[T], tick int64) {
	bucket := tick % wheelBuckets
	s.bucketTick = tick
	s.prev = noNeighbour
	s.next = w.heads[bucket]
	if s.next != noNeighbour {
		w.table.get(s.next).prev = s.fd
	}
	w.heads[bucket] = s.fd
	w.used[bucket/64] |= 1 << (bucket % 64)
	w.linked++
}

func (w *wheel[T]) unlink(s *Slot[T]) {
	if s.bucketTick == notLinked {
		return
	}
	bucket := s.bucketTick % wheelBuckets
	if s.prev != noNeighbour {
		w.table.get(s.prev).next = s.next
	} else {
		w.heads[bucket] = s.next
		if s.next == noNeighbour {
			w.used[bucket/64] &^= 1 << (bucket % 64)
		}
	}
	if s.next != noNeighbour {
		w.table.get(s.next).prev = s.prev
	}
	s.bucketTick = notLinked
	w.linked--
}

// lookBy makes sure that s is looked at no later than at the deadline.
func (w *wheel[T]) lookBy(s *Slot[T], deadline int64) {
	tick := w.tickOf(deadline)
	if s.bucketTick != notLinked {
		if s.bucketTick <= tick {
			return
		}
		w.unlink(s)
	}
	w.link(s, tick)
}

// advance calls due for each slot whose tick has come by now. The slot is
// unlinked when due is called; due may free it, or any other.
func (w *wheel[T]) advance(now int64, due func(*Slot[T])) {
	target := now / w.width
	if target <= w.current {
		return
	}
	if w.linked == 0 {
		w.current = target
		return
	}
	// After a long sleep one turn of the wheel covers everything.
	if target-w.current > wheelBuckets {
		w.current = target - wheelBuckets
	}
	for w.current < target {
		w.current++
		bucket := w.current % wheelBuckets
		if w.used[bucket/64]&(1<<(bucket%64)) == 0 {
			continue
		}
		// All of them are due: what due puts back goes to another bucket,
		// because tickOf keeps within one turn from the current tick.
		for fd := w.heads[bucket]; fd != noNeighbour; fd = w.heads[bucket] {
			s := w.table.get(fd)
			w.unlink(s)
			due(s)
		}
	}
}

// next returns how long it is from now to the next tick that has a slot, or -1.
func (w *wheel[T]) next(now int64) time.Duration {
	if w.linked == 0 {
		return -1
	}
	start := w.current + 1
	for offset := int64(0); offset < wheelBuckets; {
		bucket := (start + offset) % wheelBuckets
		word := w.used[bucket/64] >> (bucket % 64)
		if word != 0 {
			offset += int64(bits.TrailingZeros64(word))
			at := (start + offset) * w.width
			return time.Duration(max(at-now, 0))
		}
		offset += 64 - bucket%64
	}
	return -1
}
