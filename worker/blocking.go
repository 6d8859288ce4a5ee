package worker

import (
	"math"
	"time"

	"github.com/catamount-server/catamount/reactor"
)

// Blocking mode (QueueRequests off): a pool goroutine owns the connection from
// accept to close and waits for its bytes, as in Puma without its reactor. A
// slow client holds a place for as long as it likes to be slow. The mode exists
// to be understood and compared.

// finish waits for the first request of a connection (Puma's Client#finish).
// nil: the client is gone, and has been handed back.
func (s *Server) finish(sl *slot, sc *scratch) *exchange {
	c := &sl.Value
	for {
		if sl.Seen()&(reactor.Readable|reactor.PeerClosed|reactor.HungUp) == 0 && s.waitForBytes(sl, sc) {
			return nil
		}
		x, gone := s.readOnce(sl, sc)
		if gone {
			return nil
		}
		if x != nil {
			x.queuedAt = sc.now
			s.announce(sl, x)
			s.setState(c, StateQueued, sc.now)
			return x
		}
		if err := s.sendContinue(sl); err != nil {
			s.clientFailed(c, err)
			s.handBack(sl, sc, thenClose)
			return nil
		}
	}
}

// waitForBytes parks the goroutine until the client sends, or is too late; true
// when the client is gone, and has been handed back.
func (s *Server) waitForBytes(sl *slot, sc *scratch) (gone bool) {
	c := &sl.Value
	draining := s.draining.Load()
	if draining && s.letGoFromPool(sl, sc) {
		return true
	}
	timeout := time.Duration(0)
	if deadline := s.deadlineOf(c, sc.now); deadline != math.MaxInt64 {
		timeout = max(time.Duration(deadline-s.reactor.Now()), 1)
	}
	var cancel <-chan struct{}
	if !c.inFlight() && !draining {
		cancel = s.drainBegun
	}
	seen := sl.Wait(reactor.Readable|reactor.PeerClosed, timeout, cancel)
	sc.now = s.reactor.Now()
	if seen != 0 {
		return false
	}
	if s.sockets.unread(sl.FD()) > 0 {
		// Its bytes and our deadline crossed: what is here in time is served.
		sl.MarkReadable()
		return false
	}
	if !c.inFlight() {
		if s.draining.Load() {
			return s.letGoFromPool(sl, sc)
		}
		if c.state == StateIdle {
			s.stats.idleClosed.Add(1)
		}
		s.handBack(sl, sc, thenLinger)
		return true
	}
	s.noteTimeout(sl, sc.now)
	s.closeFromPool(sl, sc, 408, "", nil)
	return true
}

// letGoFromPool ends the waiting for a client because the server leaves. False:
// a request, or part of one, is here, or may be on its way from a newcomer.
func (s *Server) letGoFromPool(sl *slot, sc *scratch) bool {
	c := &sl.Value
	switch {
	case s.mayPart(c):
		s.post(sl, c.state, c.since) // to a sibling
	case c.inFlight(), c.state == StateNew && sc.now-c.since < int64(newcomerGrace):
		return false
	case s.sockets.unread(sl.FD()) > 0:
		sl.MarkReadable()
		return false
	default:
		s.handBack(sl, sc, thenLinger)
	}
	return true
}
