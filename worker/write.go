package worker

import (
	"context"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/catamount-server/catamount/reactor"
)

// errTooSlow: the client does not take its answer at the minimum rate.
var errTooSlow = fmt.Errorf("catamount: the client reads too slowly: %w", os.ErrDeadlineExceeded)

// sendWhileServing is for a handler that still writes: what the socket does not
// take waits in memory or in a file, and beyond their limits the handler does.
// The reactor sends it while the handler goes on.
func (s *Server) sendWhileServing(w *response, p []byte) error {
	sc, sl := w.scratch, w.x.slot
	if err := s.joinWaiting(sc, w); err != nil {
		return err
	}
	s.settleLoan(sc)
	if w.isPastDeadline() {
		return s.writeFailed(sc, w, os.ErrDeadlineExceeded)
	}
	for {
		var err error
		if p, err = s.push(sl, &sc.out, p, math.MaxInt64); err != nil {
			w.written -= int64(len(p))
			return s.writeFailed(sc, w, err)
		}
		if len(p) == 0 && int64(len(sc.out.mem.B)-sc.out.off) <= int64(s.options.OutputMemory) || len(p) > 0 && s.keep(&sc.out, p) {
			s.leaveToReactor(sl, sc)
			return nil
		}
		if err := s.waitWritable(sc, w); err != nil {
			w.written -= int64(len(p))
			return s.writeFailed(sc, w, err)
		}
	}
}

// sendAll waits until the socket has taken everything.
func (s *Server) sendAll(w *response) error {
	if err := s.joinWaiting(w.scratch, w); err != nil {
		return err
	}
	return s.sendFinished(w)
}

// sendFirst sends a line that comes before the answer being made.
func (s *Server) sendFirst(w *response, line string) error {
	sc := w.scratch
	s.reclaim(sc)
	if sc.out.file.left > 0 { // of an earlier request: nothing goes before it
		if err := s.sendFinished(w); err != nil {
			return err
		}
	}
	sc.out.mem.B = append(sc.out.mem.B, line...)
	return s.sendFinished(w)
}

func (s *Server) sendFinished(w *response) error {
	sc, sl := w.scratch, w.x.slot
	s.settleLoan(sc)
	if w.isPastDeadline() {
		return s.writeFailed(sc, w, os.ErrDeadlineExceeded)
	}
	for {
		if _, err := s.push(sl, &sc.out, nil, math.MaxInt64); err != nil {
			return s.writeFailed(sc, w, err)
		}
		if sc.out.isEmpty() {
			return nil
		}
		if err := s.waitWritable(sc, w); err != nil {
			return s.writeFailed(sc, w, err)
		}
	}
}

// join puts the answer that is being made behind the finished ones, on its way
// to the socket. Until then those are lent, and the reactor may be sending
// them. False: a part of a file is still to be sent before it.
func (s *Server) join(sc *scratch) bool {
	s.reclaim(sc)
	switch {
	case len(sc.cur.B) == 0:
		return true
	case sc.out.isEmpty():
		sc.out.tidy()
		sc.out.mem, sc.cur = sc.cur, sc.out.mem
		return true
	case sc.out.file.left == 0:
		sc.out.mem.B = append(sc.out.mem.B, sc.cur.B...)
	case !s.spill(&sc.out, sc.cur.B):
		return false
	}
	sc.cur.B = sc.cur.B[:0]
	return true
}

// joinWaiting is join for a handler that can wait.
func (s *Server) joinWaiting(sc *scratch, w *response) error {
	w.begun = w.wroteHeader
	for !s.join(sc) {
		_, err := s.push(w.x.slot, &sc.out, nil, math.MaxInt64)
		if err == nil && sc.out.file.left > 0 {
			err = s.waitWritable(sc, w)
		}
		if err != nil {
			return s.writeFailed(sc, w, err)
		}
	}
	return nil
}

// joinLast is join after the handler has returned.
func (s *Server) joinLast(sc *scratch, w *response) {
	s.reclaim(sc) // also when nothing is to be joined: the output is looked at from here on
	switch {
	case w.err != nil || len(sc.cur.B) == 0:
	case w.isPastDeadline():
		_ = s.writeFailed(sc, w, os.ErrDeadlineExceeded)
	default:
		_ = s.joinWaiting(sc, w) // the failure is noted, and stays in w.err
	}
	sc.cur.B = sc.cur.B[:0]
}

// isPastDeadline: the handler's own deadline counts even while the socket has
// room, as in net/http, and so does the server's.
func (w *response) isPastDeadline() bool {
	return w.deadline != 0 && w.x.server.reactor.Now() >= w.deadline
}

// waitWritable parks the handler's goroutine until the socket has room.
func (s *Server) waitWritable(sc *scratch, w *response) error {
	now := s.reactor.Now()
	deadline, late := sc.out.pace.deadline(s.options.Timeouts.WriteMinRate), errTooSlow
	if w.deadline != 0 && w.deadline < deadline {
		deadline, late = w.deadline, os.ErrDeadlineExceeded
	}
	timeout := time.Duration(0)
	if deadline != math.MaxInt64 {
		if timeout = time.Duration(deadline - now); timeout <= 0 {
			return late
		}
	}
	if w.x.slot.Wait(reactor.Writable, timeout, nil) == 0 && (late != errTooSlow || !s.stillTakes(w.x.slot, &sc.out)) {
		return late
	}
	return nil
}

// writeFailed notes the first failure of a response: it is logged and counted
// once, the request's context ends, and every later Write returns it.
func (s *Server) writeFailed(sc *scratch, w *response, err error) error {
	if w.err != nil {
		return w.err
	}
	w.err = err
	w.closeAfter = true
	s.noteWriteFailure(w.x, err, sc.out.size())
	w.x.context.cancel(context.Canceled)
	return err
}

// flush sends the output of a place after a handler has returned. What the
// socket does not take goes to the reactor together with the client, and flush
// returns false: the goroutine is free, however slowly the client reads.
func (s *Server) flush(sl *slot, sc *scratch, after then) bool {
	s.reclaim(sc)
	s.settleLoan(sc)
	last := sc.last
	sc.last = nil
	if sc.out.isEmpty() {
		sc.out.tidy()
		return true
	}
	_, err := s.push(sl, &sc.out, nil, math.MaxInt64)
	if err == nil && sc.out.isEmpty() {
		if last != nil {
			s.noteGone(last)
		}
		return true
	}
	c := &sl.Value
	if err != nil {
		s.noteWriteFailure(last, err, sc.out.size())
		s.drop(&sc.out)
		c.then = thenClose
		s.post(sl, StateClosed, sc.now)
		return false
	}
	if size := len(sc.out.mem.B) - sc.out.off; !s.hold(&sc.out, size) {
		s.spill(&sc.out, nil) // if that fails as well it stays where it is
	}
	p := c.ensurePending()
	p.out, p.last = sc.out, last
	sc.out = newOutput()
	c.then = after
	s.post(sl, StateWriting, sc.now)
	return false
}

// writeOn is the reactor's part: it writes the rest of an answer whenever the
// socket has room, and returns true when all of it has gone.
func (s *Server) writeOn(sl *slot) bool {
	c := &sl.Value
	p := c.pending
	_, err := s.push(sl, &p.out, nil, fileShare)
	switch {
	case err != nil:
		s.noteWriteFailure(p.last, err, p.out.size())
		s.close(sl)
		return false
	case p.out.isEmpty():
		if p.last != nil {
			s.noteGone(p.last)
		}
		putBuffer(&outPool, p.out.mem)
		p.out, p.last = output{}, nil
		c.settle()
		return true
	case p.out.blocked:
		s.awaitRoom(sl)
	default: // its share is used up, the others' turn
		s.again = append(s.again, readAgain{sl, sl.Generation()})
	}
	return false
}

// awaitRoom sets the deadline of a client that does not take its answer.
func (s *Server) awaitRoom(sl *slot) {
	p := sl.Value.pending
	s.reactor.SetDeadline(sl, min(p.out.pace.deadline(s.options.Timeouts.WriteMinRate), p.last.writeDeadline()))
}

// writeDeadline is when an answer must have been sent, by WriteTimeout or by
// its handler's will. Nil is an answer of the server's own.
func (x *exchange) writeDeadline() int64 {
	if x == nil || x.response.deadline == 0 {
		return reactor.NoDeadline
	}
	return x.response.deadline
}
