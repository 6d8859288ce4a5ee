package page

import (
	"sync/atomic"
	"unsafe"
)

// Slot is the part of one worker, the one with a certain index: when it is
// replaced, its successor goes on with the same counters.
type Slot struct {
	// The master's words.

	// PID of the worker, 0 when there is none.
	PID atomic.Int64
	// Phase of the worker.
	Phase atomic.Uint64
	// Command is what the worker shall do when it gets a TERM.
	Command atomic.Uint32
	_       uint32
	// Deadline, on the clock of Now, is when the master will kill it; 0: never.
	Deadline atomic.Int64
	_        [96]byte

	// The worker's words; siblings read them for each connection they accept.

	// State of the worker.
	State atomic.Uint32
	_     uint32
	// Busy is how many requests run or wait for a place.
	Busy atomic.Int64
	// Places is how many can run at once.
	Places atomic.Int64
	// Connections is how many clients it has.
	Connections atomic.Int64
	// ReactorAt and PoolAt are when the reactor and the pool's dispatcher were
	// last seen at work, on the clock of Now.
	ReactorAt atomic.Int64
	PoolAt    atomic.Int64
	// Booted is when it began to serve, on the clock of Now.
	Booted atomic.Int64
	// Served is how many requests this worker has begun (not its predecessors).
	Served atomic.Uint64
	_      [64]byte

	inFlight [InFlightPlaces]inFlight
	stats    [MaxStatsBytes]byte
}

const slotBytes = int(unsafe.Sizeof(Slot{}))

// State of a worker, as its siblings see it.
//
//	Empty → Booting → Live → Draining → Empty
type State uint32

const (
	Empty    State = iota // there is no worker
	Booting               // it does not accept yet
	Live                  // it accepts
	Draining              // it does not accept any more
)

// Command is what the master wants of a worker that it sends a TERM.
type Command uint32

const (
	// NoCommand: the TERM comes from somebody else.
	NoCommand Command = iota
	// HandOver: finish what runs and give idle connections to siblings.
	HandOver
	// Finish: finish what runs and let idle connections go, for all end.
	Finish
	// Hurry: the same, without the grace of streams.
	Hurry
)

// Stats is where the program keeps its statistics, aligned to 8 bytes: as many
// as the page's Layout says. They are never set to zero.
func (s *Slot) Stats() unsafe.Pointer { return unsafe.Pointer(&s.stats) }

// Reset takes away what a worker that is gone has left, so that the slot is
// Empty: the worker's words and the requests it was serving. What is counted
// stays. The master calls it, when the slot has no worker.
func (s *Slot) Reset() {
	s.PID.Store(0)
	s.Phase.Store(0)
	s.Command.Store(uint32(NoCommand))
	s.Deadline.Store(0)
	s.State.Store(uint32(Empty))
	s.Busy.Store(0)
	s.Places.Store(0)
	s.Connections.Store(0)
	s.ReactorAt.Store(0)
	s.PoolAt.Store(0)
	s.Booted.Store(0)
	s.Served.Store(0)
	for place := range s.inFlight {
		s.inFlight[place].since.Store(0)
	}
}
