package worker

import (
	"context"
	"math"
	"os"
	"time"

	"github.com/catamount-server/catamount/reactor"
)

// reactorSide is what the reactor calls: all of it runs on the reactor's
// goroutine, none of it waits (Puma's Server#reactor_wakeup).
type reactorSide struct{ *Server }

var _ reactor.Handler[Client] = reactorSide{}

// Ready: something happened to a client that waits.
func (s reactorSide) Ready(sl *slot, events reactor.Events) {
	switch c := &sl.Value; c.state {
	case StateWriting:
		if events&reactor.HungUp != 0 || events&reactor.Writable != 0 {
			s.keepWriting(sl)
		}
	case StateLingering:
		s.drainInput(sl)
	default:
		if events&(reactor.Readable|reactor.PeerClosed|reactor.HungUp) != 0 && !c.hasTurn() {
			s.read(sl)
		}
	}
}

// Observed: the peer of a client that is being served has gone. Its request's
// context ends, at the cost of nothing: no goroutine watches, no deadline is
// moved. The answer is attempted all the same: the client may only have shut
// down its sending side.
func (s reactorSide) Observed(sl *slot, events reactor.Events) {
	if events&(reactor.PeerClosed|reactor.HungUp) != 0 {
		s.peerGone(sl)
	}
	if events&reactor.Writable != 0 {
		s.sendWaiting(sl)
	}
}

func (s *Server) peerGone(sl *slot) {
	if x := sl.Value.exchange.Load(); x != nil {
		if b := x.streamed(); b != nil && sl.Seen()&reactor.HungUp == 0 && b.mayComplete() {
			return // the end of the body may be on its way to the handler
		}
		if x.goneAt.CompareAndSwap(0, s.reactor.Now()) {
			s.stats.gone.Add(1)
			x.context.cancel(context.Canceled)
		}
	}
}

// Returned: a pool goroutine has handed the client back by message.
func (s reactorSide) Returned(sl *slot) {
	c := &sl.Value
	switch c.state {
	case StateWriting:
		s.keepWriting(sl)
	case StateLingering:
		s.startLingering(sl)
	case StateClosed, StateHijacked:
		s.close(sl)
	default:
		s.resume(sl)
	}
}

// Expired: a deadline has passed.
func (s reactorSide) Expired(sl *slot) {
	c := &sl.Value
	switch c.state {
	case StateWriting:
		if s.stillTakes(sl, &c.pending.out) && c.pending.last.writeDeadline() > s.reactor.BatchTime() {
			s.awaitRoom(sl)
			return
		}
		late := errTooSlow
		if c.pending.last.writeDeadline() <= s.reactor.BatchTime() {
			late = os.ErrDeadlineExceeded
		}
		s.noteWriteFailure(c.pending.last, late, c.pending.out.size())
		s.close(sl)
	case StateLingering:
		s.close(sl)
	default:
		s.expireWaiting(sl)
	}
}

// expireWaiting ends a client from whom something was awaited. First its
// socket is looked at once more: a request that is there already is served,
// though it be late (its bytes and our deadline crossed).
func (s *Server) expireWaiting(sl *slot) {
	generation := sl.Generation()
	s.read(sl)
	if sl.Generation() != generation || !s.isWaiting(sl) {
		return
	}
	c := &sl.Value
	now := s.reactor.BatchTime()
	if s.deadlineOf(c, now) > now {
		return // read has set it
	}
	if c.inFlight() {
		s.noteTimeout(sl, now)
		s.answerAndClose(sl, 408, "", nil)
		return
	}
	if c.state == StateIdle {
		s.stats.idleClosed.Add(1)
	}
	s.startLingering(sl)
}

func (s reactorSide) Acceptable(listener int) { s.acceptFrom(listener) }

func (s reactorSide) BatchEnd() {
	s.sendLent()
	if s.overload.maxWait > 0 {
		s.expireQueued()
	}
	s.endBatch()
	if s.handOver.on.Load() {
		s.handOverAgain()
	}
	if len(s.again) == 0 {
		return
	}
	again := s.again
	s.again = s.again[len(s.again):]
	var reader, last *slot
	for _, entry := range again {
		switch sl := entry.slot; {
		case sl.Generation() != entry.generation:
		case sl.Owned():
			s.sendWaiting(sl)
		case sl.Value.state == StateWriting:
			s.keepWriting(sl)
		case !s.isWaiting(sl):
		case reader != nil: // one a batch; the others keep their places
			s.again = append(s.again, entry)
		default:
			reader = sl
			if s.turns++; s.turns < turnsInARow {
				s.read(sl) // and so it stays the first, if there is more
			} else {
				last = sl
			}
		}
	}
	if last != nil {
		s.turns = 0
		s.read(last)
	}
	if len(s.again) == 0 {
		s.again = again[:0]
	}
	s.reactor.KeepGoing()
}

// readAgain is a client that has more to read or to write than its share of a
// batch.
type readAgain struct {
	slot       *slot
	generation uint32
}

// isWaiting reports whether the reactor owns the client and awaits input.
func (s *Server) isWaiting(sl *slot) bool {
	if sl.Owned() {
		return false
	}
	switch sl.Value.state {
	case StateNew, StateIdle, StateHead, StateBody:
		return true
	}
	return false
}

const (
	// readSize is the reactor's one read buffer.
	readSize = 64 << 10
	// firstRead is how much of it a request is looked for in: what more there is
	// of a large body need not be copied out of it.
	firstRead = 16 << 10
	// readShare is after how many bytes of one client it is the others' turn.
	readShare = 256 << 10
	// turnsInARow is how many such shares a client gets, one a batch, while other
	// uploads wait: what it sends meanwhile is still in the processor's cache when
	// it is read, and where they take turns it is not. Everybody else is looked
	// after between two of them.
	turnsInARow = 8
)

// read takes what the client has sent, into the reactor's own buffer: whole
// requests go to the pool without having been kept anywhere else. What is known
// to be of a body goes where it stays.
func (s *Server) read(sl *slot) {
	if p := sl.Value.pending; p != nil {
		p.turn = false
	}
	for share := readShare; share > 0; {
		s.reactor.ClearReadable(sl)
		target := s.bodyRoom(&sl.Value)
		switch {
		case target != nil:
		case sl.Value.pending == nil:
			target = s.readBuffer[:firstRead]
		default:
			target = s.readBuffer
		}
		n, err := s.sockets.receive(sl.FD(), target)
		if err == errWouldBlock {
			s.await(sl)
			return
		}
		c := &sl.Value
		switch {
		case err != nil:
			s.clientFailed(c, err)
			s.close(sl)
			return
		case n == 0:
			s.clientLeft(c)
			s.close(sl)
			return
		}
		s.stats.bytesIn.Add(uint64(n))
		share -= n
		full := n == len(target)
		if s.feed(sl, target[:n], full) {
			return
		}
		if !full && sl.Seen()&(reactor.PeerClosed|reactor.HungUp) == 0 {
			// A short read means that the socket is empty; what comes now is a
			// new edge. Only the end of the stream has had its edge already.
			s.await(sl)
			return
		}
	}
	s.again = append(s.again, readAgain{sl, sl.Generation()})
	if p := sl.Value.pending; p != nil {
		p.turn = true
	}
	s.reactor.KeepGoing()
	s.await(sl)
}

// bodyRoom is where the next bytes of a client may be received because they are
// known to be of its body, and nothing else; nil: anywhere.
func (s *Server) bodyRoom(c *Client) []byte {
	if c.pending == nil || c.pending.x == nil {
		return nil
	}
	b := c.pending.x.body
	return b.room(b.remaining, &s.options)
}

// feed gives bytes to the client's request and reports whether the client has
// left the waiting states.
func (s *Server) feed(sl *slot, fresh []byte, more bool) bool {
	now := s.reactor.BatchTime()
	x, err := s.TryToFinish(sl, &s.head, fresh, now)
	if err != nil {
		s.refuse(sl, err, fresh)
		return true
	}
	if x == nil {
		if err := s.sendContinue(sl); err != nil {
			s.clientFailed(&sl.Value, err)
			s.close(sl)
			return true
		}
		return false
	}
	s.enqueue(sl, x, more)
	return true
}

// enqueue hands a client with a whole request to the pool.
func (s *Server) enqueue(sl *slot, x *exchange, more bool) {
	c := &sl.Value
	now := s.reactor.BatchTime()
	x.queuedAt = now
	c.exchange.Store(x)
	s.setState(c, StateQueued, now)
	if sl.Seen()&(reactor.PeerClosed|reactor.HungUp) != 0 {
		// It has shut down its side already, with the request.
		s.peerGone(sl)
	}
	if more {
		s.reactor.TakeReadable(sl)
	} else {
		s.reactor.Take(sl)
	}
	if err := s.submit(sl, 0); err != nil {
		s.refusedByPool(sl, s.reactorScratch(), err)
	}
}

// await leaves the client with the reactor until more comes, in the state and
// with the deadline that fit what it has sent.
func (s *Server) await(sl *slot) {
	if s.part(sl) {
		return
	}
	c := &sl.Value
	now := s.reactor.BatchTime()
	switch {
	case c.pending != nil && c.pending.x != nil:
		s.setState(c, StateBody, now)
	case c.inFlight():
		s.setState(c, StateHead, now)
	}
	s.reactor.SetDeadline(sl, s.deadlineOf(c, now))
}

// deadlineOf is when a waiting client is too late.
func (s *Server) deadlineOf(c *Client, now int64) int64 {
	t := &s.options.Timeouts
	deadline := int64(math.MaxInt64)
	limit := func(from int64, d time.Duration) {
		if d > 0 {
			deadline = min(deadline, from+int64(d))
		}
	}
	p := c.pending
	switch {
	case p != nil && p.x != nil:
		limit(p.headAt, t.Request)
		limit(p.lastAt, t.BodyIdle)
		deadline = min(deadline, p.x.body.pace.deadline(t.BodyMinRate))
	case c.inFlight():
		limit(p.headAt, t.Head)
		limit(p.headAt, t.Request)
	case c.served == 0:
		limit(c.since, t.FirstByte)
		if s.draining.Load() && !s.keepsFor(c) {
			limit(c.since, newcomerGrace)
		}
	default:
		limit(c.since, t.Idle)
	}
	return deadline
}

// resume continues a client that has come back between two requests: bytes may
// be here already.
func (s *Server) resume(sl *slot) {
	c := &sl.Value
	if s.part(sl) {
		return
	}
	if len(c.unread()) > 0 && !c.pending.parsing {
		if s.feed(sl, nil, sl.Seen()&reactor.Readable != 0) {
			return
		}
	}
	if err := s.sendContinue(sl); err != nil {
		s.clientFailed(c, err)
		s.close(sl)
		return
	}
	if sl.Seen()&(reactor.Readable|reactor.PeerClosed|reactor.HungUp) != 0 {
		s.read(sl)
		return
	}
	if s.draining.Load() && !c.inFlight() && !s.keepsFor(c) {
		// What has come since the last look for events is not in Seen.
		s.letGoUnlessAsking(sl)
		return
	}
	s.await(sl)
}

// startWriting lets the reactor write the output of a client that it owns.
func (s *Server) startWriting(sl *slot) {
	s.setState(&sl.Value, StateWriting, s.reactor.BatchTime())
	s.keepWriting(sl)
}

// keepWriting writes on, and does what follows when all has gone.
func (s *Server) keepWriting(sl *slot) {
	if !s.writeOn(sl) {
		return
	}
	c := &sl.Value
	switch c.then {
	case thenLinger:
		s.startLingering(sl)
	case thenClose:
		s.close(sl)
	default:
		s.setState(c, StateIdle, s.reactor.BatchTime())
		if c.exchange.Load() != nil { // the next request was whole already
			s.enqueue(sl, c.exchange.Load(), sl.Seen()&reactor.Readable != 0)
			return
		}
		s.resume(sl)
	}
}
