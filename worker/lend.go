package worker

import (
	"runtime"
	"sync/atomic"
	"time"
)

// Answers to pipelined requests leave together, in one write, when the last
// request that is here has been served. A slow handler in the middle would make
// the answers before it wait. So a place that goes on to the next request lends
// its output to the reactor: if the handler has not finished, or sent anything,
// within lendTime, the reactor sends what it finds. A quick handler's place takes
// the output back and nothing has happened but two atomic operations.

// lendTime is how long a finished answer may wait for the next one.
const lendTime = time.Millisecond

const (
	loanIdle uint32 = iota // the place has no pipelined batch in hand
	loanHeld               // it has, and will lend again: the reactor stays awake
	loanLent               // the reactor may take it
	loanUsed               // the reactor is sending it
	loanSent               // the reactor has sent it, and may sleep
)

// loan is the part of a scratch that the reactor looks at.
type loan struct {
	state atomic.Uint32
	since int64
	slot  *slot
	// The place's own: it has lent and not reclaimed; it counts as a lender,
	// from its first loan until the output is sent.
	own, counted bool
}

// lend offers the output to the reactor.
func (s *Server) lend(sl *slot, sc *scratch) {
	if len(sc.out.B) == sc.outOff {
		return
	}
	if sc.loan == nil {
		sc.loan = new(loan)
		s.loans.Lock()
		for len(s.loans.list) <= sc.place {
			s.loans.list = append(s.loans.list, nil)
		}
		s.loans.list[sc.place] = sc
		s.loans.Unlock()
	}
	sc.loan.own = true
	sc.loan.slot = sl
	sc.loan.since = sc.now
	sc.loan.state.Store(loanLent)
	if !sc.loan.counted {
		sc.loan.counted = true
		s.loans.lenders.Add(1)
		s.reactor.Nudge()
	}
}

// reclaim takes the output back before anything is done with it. The reactor
// may be sending it at this moment; that lasts microseconds.
func (s *Server) reclaim(sc *scratch) {
	if sc.loan == nil || !sc.loan.own {
		return
	}
	sc.loan.own = false
	for !sc.loan.state.CompareAndSwap(loanLent, loanHeld) {
		if sc.loan.state.Load() == loanSent {
			s.settleLoan(sc) // the next one has to wake the reactor again
			return
		}
		runtime.Gosched()
	}
}

// settleLoan is called when the output is sent, or about to be.
func (s *Server) settleLoan(sc *scratch) {
	if sc.loan != nil && sc.loan.counted {
		sc.loan.counted = false
		sc.loan.state.Store(loanIdle)
		s.loans.lenders.Add(-1)
	}
}

// forgetLoan takes the place's output out of the reactor's sight, until it lends
// again.
func (s *Server) forgetLoan(sc *scratch) {
	if sc.loan == nil {
		return
	}
	s.loans.Lock()
	defer s.loans.Unlock()
	if s.loans.list[sc.place] == sc {
		s.loans.list[sc.place] = nil
	}
	sc.loan = nil
}

// patience is how long the reactor may sleep while output may be lent.
func (s *Server) patience() time.Duration {
	if s.loans.lenders.Load() == 0 {
		return -1
	}
	s.loans.Lock()
	defer s.loans.Unlock()
	for _, sc := range s.loans.list {
		if sc == nil {
			continue
		}
		if state := sc.loan.state.Load(); state == loanHeld || state == loanLent {
			return lendTime
		}
	}
	return -1
}

// sendLent sends what has been lent for too long. It runs on the reactor after
// each batch.
func (s *Server) sendLent() {
	if s.loans.lenders.Load() == 0 {
		return
	}
	now := s.reactor.BatchTime()
	s.loans.Lock()
	defer s.loans.Unlock()
	for _, sc := range s.loans.list {
		if sc == nil || sc.loan.state.Load() != loanLent || !sc.loan.state.CompareAndSwap(loanLent, loanUsed) {
			continue
		}
		if now-sc.loan.since < int64(lendTime) {
			sc.loan.state.Store(loanLent)
			continue
		}
		// A failure shows again, and is reported, when the place sends.
		_, err := s.sendSome(sc.loan.slot, sc, nil)
		if err == nil && len(sc.out.B) > sc.outOff {
			sc.loan.state.Store(loanLent) // the socket is full: the rest follows
			continue
		}
		sc.loan.state.Store(loanSent)
	}
}
