package reactor

import (
	"sync/atomic"
	"time"
	"unsafe"
)

// The word of a slot:
//
//	bit 0      owned: the client belongs to a pool goroutine, else to the reactor
//	bit 1      reading: a goroutine of the owner is parked in Wait for input
//	bit 2      writing: one is parked in Wait for Writable
//	bit 3      watched: the owner wants Writable reported to Handler.Observed
//	bits 8-11  seen: the Events that came since the owner last looked
//
// Rules: only the reactor's goroutine sets owned and seen; only the owner
// clears owned (Release) and sets reading, writing and watched; both may clear
// seen bits of a client that they own. PeerClosed and HungUp stay once they are
// set.
const (
	wordOwned   uint32 = 1 << 0
	wordReading uint32 = 1 << 1
	wordWriting uint32 = 1 << 2
	wordWatched uint32 = 1 << 3
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

	parkers  atomic.Pointer[parkers] // made at the first Wait
	nextMail *Slot[T]                // link of the reactor's inbox

	// Value is the caller's part, used by whoever owns the client.
	Value T
}

// parkers wake those who are in Wait: tokens, capacity 1.
type parkers struct{ reader, writer chan struct{} }

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

// reactors is the word while the reactor owns the client: nobody else touches it
// then, so that the reactor's goroutine needs no atomic operation, of which each
// costs ten nanoseconds.
func (s *Slot[T]) reactors() *uint32 { return (*uint32)(unsafe.Pointer(&s.word)) }

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
// Two goroutines of one owner may wait at the same time, one for Writable and
// one for anything else.
//
// For Writable the caller clears it by ClearWritable, tries to write, and only
// then waits; for Readable the same with ClearReadable and a read.
func (s *Slot[T]) Wait(want Events, timeout time.Duration, cancel <-chan struct{}) Events {
	parker, waiting := s.parkersOf().reader, wordReading
	if want&Writable != 0 {
		parker, waiting = s.parkers.Load().writer, wordWriting
	}
	want |= HungUp
	var expired <-chan time.Time
	for {
		old := s.word.Load()
		if got := seenEvents(old) & want; got != 0 {
			return got
		}
		if !s.word.CompareAndSwap(old, old|waiting) {
			continue
		}
		if expired == nil && timeout > 0 {
			timer := time.NewTimer(timeout)
			defer timer.Stop()
			expired = timer.C
		}
		select {
		case <-parker:
			// A token may be left over from an earlier Wait: look again.
			s.word.And(^waiting)
		case <-expired:
			s.word.And(^waiting)
			return seenEvents(s.word.Load()) & want
		case <-cancel:
			s.word.And(^waiting)
			return seenEvents(s.word.Load()) & want
		}
	}
}

func (s *Slot[T]) parkersOf() *parkers {
	if p := s.parkers.Load(); p != nil {
		return p
	}
	s.parkers.CompareAndSwap(nil, &parkers{make(chan struct{}, 1), make(chan struct{}, 1)})
	return s.parkers.Load()
}

// ClearWritable forgets a recorded Writable; see Wait.
func (s *Slot[T]) ClearWritable() { s.word.And(^seenBits(Writable)) }

// WatchWritable says whether the reactor is to report Writable to
// Handler.Observed while the client is owned: then the handler may write on
// behalf of the owner, if the two agree by other means who writes. Owner only.
func (s *Slot[T]) WatchWritable(on bool) {
	if on {
		s.word.Or(wordWatched)
	} else if s.word.Load()&wordWatched != 0 {
		s.word.And(^wordWatched)
	}
}

// record notes events of a client and says whether a pool goroutine owns it,
// and whether one was parked and has been woken. If none does, the caller
// (the reactor) is the owner. Of an owned client it says as well which of the
// events the handler is to be told.
func (s *Slot[T]) record(events Events) (owned, woken bool, tell Events) {
	old := s.word.Or(seenBits(events))
	if old&(wordReading|wordWriting) != 0 {
		p := s.parkers.Load()
		if old&wordReading != 0 && events&(Readable|lasting) != 0 {
			woken = post(p.reader)
		}
		if old&wordWriting != 0 && events&(Writable|HungUp) != 0 {
			woken = post(p.writer) || woken
		}
	}
	tell = events & lasting
	if old&wordWatched != 0 {
		tell |= events & Writable
	}
	return old&wordOwned != 0, woken, tell
}

// post leaves a token; false when one is there already.
func post(parker chan struct{}) bool {
	select {
	case parker <- struct{}{}:
		return true
	default:
		return false
	}
}
