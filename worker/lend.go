package worker

import (
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/catamount-server/catamount/reactor"
)

// While a handler runs its place owns the output, but a handler may take its
// time, and there are bytes that should not wait for it. Those the place lends to
// the reactor:
//
//   - Answers to pipelined requests leave together, in one write, when the last
//     request that is here has been served. Before the others the answers so far
//     are lent: when a handler has run for lendTime, the reactor sends them. It
//     may because it holds the response's lock meanwhile, without which a place
//     touches its output only while no handler runs. A quick handler costs
//     nothing.
//   - What a full socket has refused is lent until there is room for it.

// lendTime is how long finished answers may wait for the next one.
const lendTime = time.Millisecond

const (
	loanIdle    uint32 = iota // nothing is lent
	loanLent                  // the reactor sends it when the handler that runs takes lendTime
	loanWaiting               // the reactor may take it, and does when the socket has room
	loanUsed                  // the reactor is sending it: the place has to wait a moment
	loanSent                  // the reactor has sent it, and may sleep
)

// loan is the part of a scratch that the reactor looks at.
type loan struct {
	state   atomic.Uint32
	slot    atomic.Pointer[slot]
	counted bool // the place's own: as a lender, from its first loan until the output is sent
}

// loans are all outputs that may be lent.
type loans struct {
	sync.Mutex
	list     []*scratch   // by pool place
	detached []*scratch   // of places that the pool does not count at present: another may have the same number
	lenders  atomic.Int32 // places in the middle of a pipelined batch
}

// all calls f for each; the lock is held.
func (l *loans) all(f func(sc *scratch)) {
	for _, sc := range l.list {
		if sc != nil {
			f(sc)
		}
	}
	for _, sc := range l.detached {
		f(sc)
	}
}

// loanOf returns the loan of sc, which the reactor can find from now on.
func (s *Server) loanOf(sc *scratch) *loan {
	if sc.loan != nil && !sc.holder.Detached() {
		return sc.loan
	}
	if sc.loan == nil {
		sc.loan = new(loan)
	}
	l := &s.loans
	l.Lock()
	defer l.Unlock()
	for len(l.list) <= sc.place {
		l.list = append(l.list, nil)
	}
	switch old := l.list[sc.place]; {
	case sc.holder.Detached():
		if old == sc {
			l.list[sc.place] = nil
		}
		if !slices.Contains(l.detached, sc) {
			l.detached = append(l.detached, sc)
		}
		return sc.loan
	case old != nil && old != sc && old.holder.Detached():
		l.detached = append(l.detached, old)
	}
	l.list[sc.place] = sc
	return sc.loan
}

// forgetLoan takes the output of a detached place out of the reactor's sight,
// until it lends again.
func (s *Server) forgetLoan(sc *scratch) {
	if sc.loan == nil {
		return
	}
	l := &s.loans
	l.Lock()
	defer l.Unlock()
	if l.list[sc.place] == sc {
		l.list[sc.place] = nil
	}
	l.detached = slices.DeleteFunc(l.detached, func(other *scratch) bool { return other == sc })
	sc.loan = nil
}

// lend offers finished answers to the reactor while the next one is made.
func (s *Server) lend(sl *slot, sc *scratch) {
	if sc.out.isEmpty() {
		return
	}
	l := s.loanOf(sc)
	if l.state.Load() == loanLent {
		return
	}
	l.slot.Store(sl)
	l.state.Store(loanLent)
	if !l.counted {
		l.counted = true
		s.loans.lenders.Add(1)
	}
	s.reactor.Nudge()
}

// leaveToReactor offers what the socket has refused, while the handler goes on.
func (s *Server) leaveToReactor(sl *slot, sc *scratch) {
	for !sc.out.isEmpty() {
		l := s.loanOf(sc)
		l.slot.Store(sl)
		sl.WatchWritable(true)
		l.state.Store(loanWaiting)
		// The room may have come just before: then nobody is told of it.
		if sl.Seen()&(reactor.Writable|reactor.HungUp) == 0 {
			return
		}
		s.reclaim(sc)
		if l.state.Load() == loanSent {
			return
		}
		if _, err := s.push(sl, &sc.out, nil, math.MaxInt64); err != nil {
			sc.out.failed = err // it is reported with the next write
			return
		}
	}
}

// reclaim takes the output back before anything is done with it. The reactor
// may be sending it at this moment; that lasts microseconds. What is merely lent
// needs no taking back: see above.
func (s *Server) reclaim(sc *scratch) {
	l := sc.loan
	if l == nil {
		return
	}
	for {
		switch l.state.Load() {
		case loanWaiting:
			if l.state.CompareAndSwap(loanWaiting, loanIdle) {
				return
			}
		case loanUsed:
			runtime.Gosched() // the reactor looks at it, perhaps on its way to another
		default:
			return
		}
	}
}

// settleLoan is called when the output is sent, or about to be.
func (s *Server) settleLoan(sc *scratch) {
	s.stats.publish(sc.place, &sc.tally)
	l := sc.loan
	if l == nil {
		return
	}
	if l.state.Load() != loanIdle {
		l.state.Store(loanIdle)
	}
	if l.counted { // also when it has been taken back before: see reclaim
		l.counted = false
		s.loans.lenders.Add(-1)
	}
}

// patienceOfLoans is how long the reactor may sleep while output may be lent.
func (s *Server) patienceOfLoans() time.Duration {
	if s.loans.lenders.Load() == 0 {
		return -1
	}
	s.loans.Lock()
	defer s.loans.Unlock()
	patience := time.Duration(-1)
	s.loans.all(func(sc *scratch) {
		if sc.loan.state.Load() == loanLent {
			patience = lendTime
		}
	})
	return patience
}

// sendLent sends finished answers behind which a handler has run for too long.
// It runs on the reactor after each batch.
func (s *Server) sendLent() {
	if s.loans.lenders.Load() == 0 {
		return
	}
	now := s.reactor.BatchTime()
	s.loans.Lock()
	defer s.loans.Unlock()
	s.loans.all(func(sc *scratch) {
		if sc.loan.state.Load() != loanLent {
			return
		}
		sl := sc.loan.slot.Load()
		x := sl.Value.exchange.Load()
		if x == nil || now-x.queuedAt < int64(lendTime) {
			return
		}
		if sc.loan.state.Load() != loanLent || sc.loan.slot.Load() != sl {
			return // the request is one after those that it was lent for
		}
		w := &x.response
		if !w.mu.TryLock() {
			return // the handler writes just now: the next look is a millisecond away
		}
		defer w.mu.Unlock()
		if w.scratch == sc && !w.hijacked && !w.timedOut() && sc.loan.state.Load() == loanLent {
			s.sendLoan(sc)
		}
	})
}

// sendWaiting sends what the socket of sl had refused, if it is lent.
func (s *Server) sendWaiting(sl *slot) {
	s.loans.Lock()
	defer s.loans.Unlock()
	s.loans.all(func(sc *scratch) {
		switch {
		case !sc.loan.state.CompareAndSwap(loanWaiting, loanUsed):
		case sc.loan.slot.Load() != sl:
			sc.loan.state.Store(loanWaiting)
		default:
			s.sendLoan(sc)
		}
	})
}

// sendLoan sends an output that is in use by the reactor, or lent by a handler
// whose response's lock it holds.
func (s *Server) sendLoan(sc *scratch) {
	sl := sc.loan.slot.Load()
	_, err := s.push(sl, &sc.out, nil, fileShare)
	switch {
	case err != nil: // it is reported when the place sends
		sc.out.failed = err
		sc.loan.state.Store(loanWaiting)
	case sc.out.isEmpty():
		sc.loan.state.Store(loanSent)
	default:
		if !sc.out.blocked { // its share is used up, the others' turn
			s.again = append(s.again, readAgain{sl, sl.Generation()})
			s.reactor.KeepGoing()
		}
		sl.WatchWritable(true)
		sc.loan.state.Store(loanWaiting)
	}
}
