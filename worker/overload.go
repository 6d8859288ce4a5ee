package worker

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/catamount-server/catamount/reactor"
	"github.com/catamount-server/catamount/threadpool"
)

// The todo may be bounded by length (Options.MaxBacklog) and by age
// (Options.MaxQueueWait): a request for which no place is free in time is not
// worth much to a client who has given up, and serving it late makes all behind
// it late. What is refused gets a 503 that costs no place.
//
// Length is looked at when a request comes. Age has to hold even when all
// places hang for ever, so the reactor takes what is too old out of the todo;
// as the todo is first in, first out, it only ever looks at the oldest. A place
// that comes to a request too late refuses it as well.
//
// The connection is kept: the request was read whole, so nothing of it is in
// the way of the next one, and a server that has too much to do gains nothing
// from clients that connect anew.

// Overload is why a request was refused for want of a place.
type Overload uint8

const (
	OverloadBacklog Overload = iota // as many requests waited as may
	OverloadAge                     // it had waited as long as it may
	numOverloads    = int(OverloadAge) + 1
)

func (o Overload) String() string { return [numOverloads]string{"backlog", "age"}[o] }

const (
	// expireShare bounds how many requests are refused for their age in one
	// batch of the reactor: others have a right to it, too.
	expireShare = 64
	// hugeBacklog is as good as none; larger bounds would overflow.
	hugeBacklog = 1 << 30
)

// overload is the part of a Server that bounds the todo. Its zero value does
// not.
type overload struct {
	maxBacklog int
	maxWait    int64       // nanoseconds; 0: no limit
	header     http.Header // of the 503; only read

	// watching: the reactor, asleep, will wake up in time for the oldest
	// request. Where it does not, whoever makes the todo no longer empty has to
	// tell it.
	watching atomic.Bool

	// The reactor's own.
	lookAt  int64    // nothing in the todo is too old before
	scratch *scratch // for answers that no place makes
}

// init takes up the options. In blocking mode a place waits for its client's
// bytes, and what queues are connections without a request: nothing is bounded.
func (o *overload) init(options *Options) {
	if !options.QueueRequests || options.MaxBacklog <= 0 && options.MaxQueueWait <= 0 {
		return
	}
	o.maxBacklog = min(max(options.MaxBacklog, 0), hugeBacklog)
	o.maxWait = int64(max(options.MaxQueueWait, 0))
	seconds := max((options.RetryAfter+time.Second-1)/time.Second, 1)
	o.header = http.Header{
		"Content-Type": {unavailableType},
		"Retry-After":  {strconv.FormatInt(int64(seconds), 10)},
	}
	o.scratch = newScratch(0, nil)
}

// submit puts a client with a whole request into the todo. leaving is 1 when
// the caller is a place that goes on to the todo itself, and so makes room for
// one, else 0. The error is threadpool.ErrFull or ErrShutdown. After success
// the client is no longer the caller's.
func (s *Server) submit(sl *slot, leaving int) error {
	var err error
	if s.overload.maxBacklog > 0 {
		err = s.pool.TrySubmit(sl, s.overload.maxBacklog+leaving)
	} else {
		err = s.pool.Submit(sl)
	}
	if s.overload.maxWait > 0 && err == nil && !s.overload.watching.Load() {
		s.reactor.Nudge()
	}
	return err
}

// refusedByPool does what follows when submit has failed.
func (s *Server) refusedByPool(sl *slot, sc *scratch, err error) {
	if err == threadpool.ErrFull {
		s.refuseOverload(sl, sc, OverloadBacklog)
		return
	}
	c := &sl.Value
	if x := c.exchange.Swap(nil); x != nil {
		x.abandon()
	}
	c.then = thenClose
	s.post(sl, StateClosed, sc.now)
}

// reactorScratch is for answers that are made on the reactor's goroutine.
func (s *Server) reactorScratch() *scratch {
	sc := s.overload.scratch
	if sc == nil { // no bound: nothing will be answered
		return &scratch{now: s.reactor.BatchTime()}
	}
	sc.now = s.reactor.BatchTime()
	return sc
}

// isOverdue: a place has come to a request after its time.
func (s *Server) isOverdue(x *exchange, now int64) bool {
	return s.overload.maxWait > 0 && now-x.queuedAt >= s.overload.maxWait
}

// refuseOverload answers a whole request with 503. The caller owns the client,
// of which no output is pending, and gives it away: the reactor goes on with
// what the client has sent since. sc is the caller's.
func (s *Server) refuseOverload(sl *slot, sc *scratch, why Overload) {
	c := &sl.Value
	x := c.exchange.Swap(nil)
	s.stats.overload[why].Add(1)
	s.stats.countAnswer(sc.place, http.StatusServiceUnavailable)
	s.log.warn(limitKey{event: "overload", detail: why.String()}, "request refused (503): overload",
		"reason", why.String(), "backlog", s.pool.Backlog(), "oldest", s.oldestWait(sc.now, x))
	c.served++
	w := &x.response
	s.makeUnavailable(w, sc, s.overload.header)
	_ = s.join(sc) // nothing is before it
	if x.streamed() != nil && !s.endStream(x) {
		w.closeAfter, w.asked = true, false
	}
	x.abandon()
	sc.last = x
	if w.closeAfter {
		after := thenClose
		if !w.asked || c.HasBackToBackRequests() || sl.Seen()&reactor.Readable != 0 {
			after = thenLinger // see conclude
		}
		s.handBack(sl, sc, after)
		return
	}
	// By message and not at once: the next request may be here, and be refused
	// in its turn, but others come first.
	if s.flush(sl, sc, thenIdle) {
		s.post(sl, StateIdle, sc.now)
	}
}

// oldestWait is how long the request at the head of the todo, or x if that came
// before, has waited.
func (s *Server) oldestWait(now int64, x *exchange) time.Duration {
	since := min(x.queuedAt, now)
	s.pool.TakeOldest(func(oldest *slot) bool {
		since = min(since, oldest.Value.exchange.Load().queuedAt)
		return false
	})
	return time.Duration(now - since)
}

// expireQueued refuses what has waited too long. It runs on the reactor after
// each batch.
func (s *Server) expireQueued() {
	o := &s.overload
	now := s.reactor.BatchTime()
	if now < o.lookAt {
		return
	}
	for range expireShare {
		since := now
		sl, taken := s.pool.TakeOldest(func(oldest *slot) bool {
			since = oldest.Value.exchange.Load().queuedAt
			return now-since >= o.maxWait
		})
		if !taken {
			o.lookAt = since + o.maxWait
			return
		}
		s.refuseOverload(sl, s.reactorScratch(), OverloadAge)
	}
	// There may be more. The clients that were refused come back by message, so
	// the next batch follows at once.
}

// patience is how long the reactor may sleep: until lent output has to be sent,
// a connection has been passed over long enough, or the oldest request in the
// todo is too old.
func (s *Server) patience() time.Duration {
	limit := s.patienceOfHandOver(s.patienceOfGate(s.patienceOfLoans()))
	o := &s.overload
	if o.maxWait == 0 {
		return limit
	}
	// First take the promise back, then look whether somebody waits, then give
	// it again: who submits after the look finds it taken back.
	o.watching.Store(false)
	if !s.pool.HasBacklog() {
		return limit
	}
	o.watching.Store(true)
	left := max(time.Duration(o.lookAt-s.reactor.Now()), 0)
	if limit >= 0 {
		left = min(left, limit)
	}
	return left
}
