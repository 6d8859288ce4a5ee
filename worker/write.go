package worker

import (
	"context"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/catamount-server/catamount/reactor"
)

// errTooSlow: the client does not take its answer at the minimum rate, or not
// within the total time.
var errTooSlow = fmt.Errorf("catamount: the client reads too slowly: %w", os.ErrDeadlineExceeded)

// progress measures a client that does not take its output: from the moment
// when the socket first refused bytes until it has taken all of them.
type progress struct {
	since int64 // 0: the socket takes what it gets
	sent  int64 // bytes since then
}

// deadline is the moment at which the client is too slow: after the total time,
// or when the bytes it took are fewer than the minimum rate asks for. Each byte
// moves the second one further, so a trickle cannot stretch it beyond the rate.
func (p *progress) deadline(t *Timeouts) int64 {
	deadline := int64(math.MaxInt64)
	if t.Write > 0 {
		deadline = p.since + int64(t.Write)
	}
	if t.WriteMinRate > 0 {
		deadline = min(deadline, p.since+int64(t.WriteGrace)+timeFor(p.sent, t.WriteMinRate))
	}
	return deadline
}

// timeFor is how long so many bytes take at a rate of bytes per second, in
// nanoseconds. Multiplying first would overflow at 9 GB.
func timeFor(bytes int64, rate int) int64 {
	r := int64(rate)
	return bytes/r*int64(time.Second) + bytes%r*int64(time.Second)/r
}

// sendSome gives the socket the output of sc and then p, and returns what is
// left of p. The output's rest stays in sc.
func (s *Server) sendSome(sl *slot, sc *scratch, p []byte) ([]byte, error) {
	if sc.blocked {
		if sl.Seen()&(reactor.Writable|reactor.HungUp) == 0 {
			return p, nil
		}
		sl.ClearWritable()
	}
	for {
		out := sc.out.B[sc.outOff:]
		if len(out)+len(p) == 0 {
			sc.out.B, sc.outOff = sc.out.B[:0], 0
			sc.blocked, sc.progress = false, progress{}
			return nil, nil
		}
		n, err := s.sockets.send(sl.FD(), out, p)
		if err == errWouldBlock {
			if !sc.blocked {
				// An edge may have come between the refusal and now: forget it
				// first, and ask once more.
				sc.blocked = true
				if sc.progress.since == 0 {
					sc.progress = progress{since: max(s.reactor.Now(), 1)}
				}
				sl.ClearWritable()
				continue
			}
			return p, nil
		}
		if err != nil {
			return p, err
		}
		sc.blocked = false
		sc.progress.sent += int64(n)
		s.stats.bytesOut.Add(uint64(n))
		if n >= len(out) {
			sc.out.B, sc.outOff = sc.out.B[:0], 0
			p = p[n-len(out):]
		} else {
			sc.outOff += n
		}
	}
}

// sendWhileServing is for a handler that still writes: what the socket does not
// take waits in memory up to OutputMemory, and beyond that the handler does.
func (s *Server) sendWhileServing(w *response, p []byte) error {
	sc, sl := w.scratch, w.x.slot
	s.join(sc)
	s.settleLoan(sc)
	if w.isPastDeadline() {
		return s.writeFailed(w, os.ErrDeadlineExceeded)
	}
	for {
		var err error
		if p, err = s.sendSome(sl, sc, p); err != nil {
			return s.writeFailed(w, err)
		}
		if len(p)+len(sc.out.B)-sc.outOff <= s.options.OutputMemory {
			sc.compact()
			sc.out.B = append(sc.out.B, p...)
			return nil
		}
		if err := s.waitWritable(w); err != nil {
			return s.writeFailed(w, err)
		}
	}
}

// sendAll waits until the socket has taken everything.
func (s *Server) sendAll(w *response) error {
	s.join(w.scratch)
	return s.sendFinished(w)
}

// sendFirst sends a line that comes before the answer being made.
func (s *Server) sendFirst(w *response, line string) error {
	sc := w.scratch
	s.reclaim(sc)
	sc.out.B = append(sc.out.B, line...)
	return s.sendFinished(w)
}

func (s *Server) sendFinished(w *response) error {
	sc, sl := w.scratch, w.x.slot
	s.settleLoan(sc)
	if w.isPastDeadline() {
		return s.writeFailed(w, os.ErrDeadlineExceeded)
	}
	for {
		if _, err := s.sendSome(sl, sc, nil); err != nil {
			return s.writeFailed(w, err)
		}
		if len(sc.out.B) == sc.outOff {
			return nil
		}
		if err := s.waitWritable(w); err != nil {
			return s.writeFailed(w, err)
		}
	}
}

// join puts the answer that is being made behind the finished ones, on its way
// to the socket. Until then those are lent, and the reactor may be sending
// them.
func (s *Server) join(sc *scratch) {
	s.reclaim(sc)
	if len(sc.out.B) == sc.outOff {
		sc.out.B, sc.outOff = sc.out.B[:0], 0
		sc.out, sc.cur = sc.cur, sc.out
		return
	}
	sc.out.B = append(sc.out.B, sc.cur.B...)
	sc.cur.B = sc.cur.B[:0]
}

// compact moves the unsent output to the front when that is cheap.
func (sc *scratch) compact() {
	if sc.outOff > 0 && sc.outOff >= len(sc.out.B)/2 {
		sc.out.B = sc.out.B[:copy(sc.out.B, sc.out.B[sc.outOff:])]
		sc.outOff = 0
	}
}

// isPastDeadline: the handler's own deadline counts even while the socket has
// room, as in net/http.
func (w *response) isPastDeadline() bool {
	return w.rare != nil && !w.rare.writeDeadline.IsZero() && !time.Now().Before(w.rare.writeDeadline)
}

// waitWritable parks the handler's goroutine until the socket has room.
func (s *Server) waitWritable(w *response) error {
	sc := w.scratch
	timeout := time.Duration(0)
	if deadline := sc.progress.deadline(&s.options.Timeouts); deadline != math.MaxInt64 {
		if timeout = time.Duration(deadline - s.reactor.Now()); timeout <= 0 {
			return errTooSlow
		}
	}
	late := errTooSlow
	if w.rare != nil && !w.rare.writeDeadline.IsZero() {
		left := time.Until(w.rare.writeDeadline)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		if timeout == 0 || left < timeout {
			timeout, late = left, os.ErrDeadlineExceeded
		}
	}
	if w.x.slot.Wait(reactor.Writable, timeout, nil) == 0 {
		return late
	}
	return nil
}

// writeFailed notes the first failure of a response: it is logged and counted
// once, the request's context ends, and every later Write returns it.
func (s *Server) writeFailed(w *response, err error) error {
	if w.err != nil {
		return w.err
	}
	w.err = err
	w.closeAfter = true
	s.noteWriteFailure(w.x, err)
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
	if len(sc.out.B) == sc.outOff {
		sc.out.B, sc.outOff, sc.blocked = sc.out.B[:0], 0, false
		return true
	}
	_, err := s.sendSome(sl, sc, nil)
	if err == nil && len(sc.out.B) == sc.outOff {
		return true
	}
	c := &sl.Value
	if err != nil {
		sc.dropOutput()
		s.noteWriteFailure(last, err)
		c.then = thenClose
		s.post(sl, StateClosed, sc.now)
		return false
	}
	p := c.ensurePending()
	p.out, p.outOff, p.progress, p.last = sc.out, sc.outOff, sc.progress, last
	sc.out, sc.outOff, sc.blocked, sc.progress = outPool.Get(), 0, false, progress{}
	c.then = after
	s.post(sl, StateWriting, sc.now)
	return false
}

// dropOutput forgets what could not be sent.
func (sc *scratch) dropOutput() {
	sc.out.B, sc.outOff, sc.blocked, sc.progress = sc.out.B[:0], 0, false, progress{}
}

// writeOn is the reactor's part: it writes the rest of an answer whenever the
// socket has room, and returns true when all of it has gone.
func (s *Server) writeOn(sl *slot) bool {
	c := &sl.Value
	p := c.pending
	sl.ClearWritable()
	for p.outOff < len(p.out.B) {
		n, err := s.sockets.send(sl.FD(), p.out.B[p.outOff:], nil)
		if err == errWouldBlock {
			if p.progress.since == 0 {
				p.progress.since = max(s.reactor.BatchTime(), 1)
			}
			s.reactor.SetDeadline(sl, p.progress.deadline(&s.options.Timeouts))
			return false
		}
		if err != nil {
			s.noteWriteFailure(p.last, err)
			s.close(sl)
			return false
		}
		p.outOff += n
		p.progress.sent += int64(n)
		s.stats.bytesOut.Add(uint64(n))
	}
	putBuffer(&outPool, p.out)
	p.out, p.outOff, p.progress, p.last = nil, 0, progress{}, nil
	c.settle()
	return true
}
