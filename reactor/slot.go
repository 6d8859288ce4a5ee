package reactor

import (
	"sync/atomic"
	"time"
)

// The word of a slot:
//
//	bit 0      owned: the client belongs to a pool goroutine, else to the reactor
//	bit 1      waiting: the owner is parked in Wait
//	bits 8-11  seen: the Events that came since the owner last looked
//
// Rules: only the reactor's goroutine sets owned and seen; only the owner
// clears owned (Release) and sets waiting; both may clear seen bits of a client
// that they own. PeerClosed and HungUp stay once they are set.
const (
	wordOwned   uint32 = 1 << 0
	wordWaiting uint32 = 1 << 1
	seenShift          = 8
)

func seenBits(e Events) uint32      { return uint32(e) << seenShift }
func seenEvents(word uint32) Events { return Events(word >> seenShift) }

// lasting are the events that can never become untrue.
const lasting = PeerClosed | HungUp

// Slot is the place of one client in a reactor.
type Slot[T any] struct {
	word       atomic.Uint32
	generation uint32 // 0: the slot is free
	fd         int32
	next, prev int32 // neighbours in the wheel's bucket, by descriptor; none: -1
	bucketTick int64 // the tick at which the wheel looks at this slot; notLinked: it never does
	deadline   int64 // nanoseconds on the reactor's clock; written by whoever owns the client

	parker   chan struct{} // made at the first Wait; capacity 1
	nextMail *Slot[T]      // link of the reactor's inbox

	// Value is the caller's part, used by whoever owns the client.
	Value T
}

// FD is the client's descriptor.
func (s *Slot[T]) FD() int { return int(s.fd) }

// Generation tells the clients of one slot apart; 0 when the slot is free.
// Reactor's goroutine only.
func (s *Slot[T]) Generation() uint32 { return s.generation }

// Owned reports whether a pool goroutine owns the client. Only the reactor's
// goroutine may rely on false.
func (s *Slot[T]) Owned() bool { return s.word.Load()&wordOwned != 0 }

// Seen returns the events recorded and not yet cleared.
func (s *Slot[T]) Seen() Events { return seenEvents(s.word.Load()) }

// ClearReadable forgets a recorded Readable. The owner calls it before it reads
// until nothing is left: what arrives later is recorded again.
func (s *Slot[T]) ClearReadable() {
	if s.word.Load()&seenBits(Readable) != 0 {
		s.word.And(^seenBits(Readable))
	}
}

// MarkReadable records that bytes were left unread on purpose, so that
// Release refuses and the next look at Seen finds them. Owner only.
func (s *Slot[T]) MarkReadable() { s.word.Or(seenBits(Readable)) }

// SetDeadline says when the reactor is to call Handler.Expired, in nanoseconds
// on the reactor's clock. This form is for a pool goroutine that is about to
// Release or Post, and may not set a deadline earlier than Options.ReleaseTimeout
// from the moment it does so: the reactor looks at a client only so often. One
// that is earlier by some time may fire later by as much.
func (s *Slot[T]) SetDeadline(deadline int64) { s.deadline = deadline }

// Release gives the client back to the reactor. When something happened
// meanwhile that needs attention it does not, and reports what: the caller is
// the owner still. This is the re-check without which an edge would be lost.
func (s *Slot[T]) Release() (seen Events, released bool) {
	for {
		old := s.word.Load()
		if old&seenBits(Readable|lasting) != 0 {
			return seenEvents(old), false
		}
		if s.word.CompareAndSwap(old, 0) {
			return 0, true
		}
	}
}

// Wait parks the owner until one of the wanted events, or HungUp, is recorded;
// it returns at once when one is. A timeout of 0 or less waits without limit;
// after a timeout Wait returns 0. So it does once cancel is closed, which may
// be nil.
//
// For Writable the caller clears it by ClearWritable, tries to write, and only
// then waits; for Readable the same with ClearReadable and a read.
func (s *Slot[T]) Wait(want Events, timeout time.Duration, cancel <-chan struct{}) Events {
	want |= HungUp
	if s.parker == nil {
		s.parker = make(chan struct{}, 1)
	}
	var expired <-chan time.Time
	for {
		old := s.word.Load()
		if got := seenEvents(old) & want; got != 0 {
			return got
		}
		if !s.word.CompareAndSwap(old, old|wordWaiting) {
			continue
		}
		if expired == nil && timeout > 0 {
			timer := time.NewTimer(timeout)
			defer timer.Stop()
			expired = timer.C
		}
		select {
		case <-s.parker:
			// A token may be left over from an earlier Wait: look again.
			s.word.And(^wordWaiting)
		case <-expired:
			s.word.And(^wordWaiting)
			return seenEvents(s.word.Load()) & want
		case <-cancel:
			s.word.And(^wordWaiting)
			return seenEvents(s.word.Load()) & want
		}
	}
}

// ClearWritable forgets a recorded Writable; see Wait.
func (s *Slot[T]) ClearWritable() { s.word.And(^seenBits(Writable)) }

// record notes events of a client and says whether a pool goroutine owns it,
// and whether that one was parked and has been woken. If none does, the caller
// (the reactor) is the owner.
func (s *Slot[T]) record(events Events) (owned, woken bool) {
	old := s.word.Or(seenBits(events))
	if old&wordWaiting != 0 {
		select {
		case s.parker <- struct{}{}:
			woken = true
		default: // a token is there already
		}
	}
	return old&wordOwned != 0, woken
}
