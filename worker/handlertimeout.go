package worker

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// A handler's deadline (Options.HandlerTimeout). Goroutines cannot be ended
// from outside, so a handler that does not heed its context goes on, and keeps
// its place. What can be taken from it is the client: if nothing of its answer
// was sent, the client gets a 503 and goes back to the reactor, which closes
// the connection in its own time, as it does after Hijack. From then on the
// handler has no connection; what it writes is refused, and when it returns
// nothing is left to do but to free the place.
//
// The timer fires on a goroutine of its own. The response's lock decides who is
// first: under it the timer acts in the place of the goroutine that serves the
// request, which owns client and scratch but uses them, while a handler runs,
// only under that lock.

// handlerWatch is the part of a scratch that watches the handlers of its place;
// there is none without Options.HandlerTimeout.
type handlerWatch struct {
	timer     *time.Timer
	goroutine int                      // id of the one that holds the place
	watched   atomic.Pointer[exchange] // whose handler runs
}

// handlerLimit is what is known of a handler that is watched; set before it
// starts. The request's fields are copied because handlers may change them.
type handlerLimit struct {
	at                 time.Time // the deadline
	goroutine          int
	method, path, peer string
	// expired: the context has ended, by the deadline. fired: so has everything
	// else that the deadline does; guarded by the response's lock.
	expired atomic.Bool
	fired   bool
	taken   bool // the client is the reactor's; guarded likewise
}

// limitedParts saves an allocation.
type limitedParts struct {
	rare  rareParts
	limit handlerLimit
}

// lateness is what a handler's deadline found.
type lateness uint8

const (
	lateNot      lateness = iota // the handler has returned, or this was seen to before
	lateHijacked                 // the connection is not ours
	lateBegun                    // the answer has begun, and goes on
	lateAnswered                 // with a 503
)

// prepareWatch is called when a goroutine comes to the todo with a place.
func (s *Server) prepareWatch(sc *scratch, continues bool) {
	if sc.watch == nil {
		watch := new(handlerWatch)
		watch.timer = time.AfterFunc(time.Hour, func() { s.handlerIsLate(watch) })
		watch.timer.Stop()
		sc.watch = watch
	}
	if !continues || sc.watch.goroutine == 0 {
		sc.watch.goroutine = goroutineID()
	}
}

// begin starts the time of a handler.
func (watch *handlerWatch) begin(x *exchange, timeout time.Duration) {
	r := &x.request
	parts := &limitedParts{limit: handlerLimit{
		at:        time.Now().Add(timeout),
		goroutine: watch.goroutine,
		method:    r.Method, path: r.URL.Path, peer: r.RemoteAddr,
	}}
	parts.rare.limit = &parts.limit
	x.response.rare = &parts.rare
	watch.watched.Store(x)
	watch.timer.Reset(timeout)
}

// endWatch is called when the handler has returned and its response is
// finished, so that the timer's function, which may be running, changes nothing
// any more.
func (s *Server) endWatch(watch *handlerWatch, x *exchange) {
	watch.timer.Stop()
	watch.watched.Store(nil)
	if limit := x.limit(); limit.expired.Load() && !limit.fired && !x.response.hijacked {
		s.noteLate(limit, lateBegun, "not taken: the handler was writing, and has returned")
	}
}

// limit returns the deadline of a handler, nil without one. Nobody sets it once
// the handler runs; so it needs no lock.
func (x *exchange) limit() *handlerLimit {
	if x.server.options.HandlerTimeout <= 0 || x.response.rare == nil {
		return nil
	}
	return x.response.rare.limit
}

// timedOut: the client has been answered in the handler's stead. The lock is
// held, or the handler has returned.
func (w *response) timedOut() bool { return w.err == http.ErrHandlerTimeout }

// handlerIsLate is the timer's function.
func (s *Server) handlerIsLate(watch *handlerWatch) {
	x := watch.watched.Load()
	if x == nil {
		return
	}
	limit := x.limit()
	if left := time.Until(limit.at); left > 0 {
		// It was set for a request before this one. Should that one still have
		// changed it, behind our back, so be it: a later handler's time is never
		// over before.
		watch.timer.Reset(left)
		return
	}
	w := &x.response
	if !w.mu.TryLock() {
		// As a rule the handler waits in Write for its client. Its context must
		// not have to wait as well; the rest can.
		limit.expired.Store(true)
		x.context.cancel(context.DeadlineExceeded)
		watch.timer.Reset(lateRetry)
		return
	}
	late := s.answerLate(x, limit)
	stack := ""
	if late == lateBegun || late == lateAnswered {
		// Before the context wakes the handler: the stack shows where it hangs.
		// And under the lock: it cannot return and serve another request.
		stack = s.stackOf(limit.goroutine)
	}
	if w.timedOut() && !limit.taken && !w.finished {
		watch.timer.Reset(lateRetry)
	}
	w.mu.Unlock()
	if late == lateNot {
		return
	}
	x.context.cancel(context.DeadlineExceeded)
	s.noteLate(limit, late, stack)
}

// lateRetry is when to look again at a handler that was in the middle of
// writing or reading.
const lateRetry = 20 * time.Millisecond

// answerLate does what a deadline does to an answer: if nothing of it was sent,
// the handler loses its client. The lock is held.
func (s *Server) answerLate(x *exchange, limit *handlerLimit) lateness {
	w := &x.response
	switch {
	case w.finished:
		return lateNot
	case limit.fired:
		if w.timedOut() && !limit.taken {
			limit.taken = s.takeClient(x, w.scratch)
		}
		return lateNot
	case w.hijacked:
		limit.fired = true
		return lateHijacked
	case w.begun || w.err != nil:
		limit.fired = true
		return lateBegun
	}
	limit.fired = true
	w.status, w.err = http.StatusServiceUnavailable, http.ErrHandlerTimeout
	s.stats.countAnswer(int(x.place), w.status)
	if b := x.streamed(); b != nil {
		b.close(http.ErrHandlerTimeout) // who reads it is woken
	}
	limit.taken = s.takeClient(x, w.scratch)
	return lateAnswered
}

// takeClient answers the client of a handler in its stead, and hands it to the
// reactor. It does not wait: false says that it has to be tried again, because
// somebody still reads the body, or because a file that belongs to an answer
// before this one is still being sent. The lock is held, or the handler has
// returned.
func (s *Server) takeClient(x *exchange, sc *scratch) bool {
	if b := x.streamed(); b != nil {
		if !b.reading.TryLock() {
			return false
		}
		defer b.reading.Unlock()
	}
	w := &x.response
	sc.cur.B = sc.cur.B[:0] // what there was of the handler's own answer
	answer := response{x: x, declared: -1, isHead: w.isHead, atLeast11: w.atLeast11, closeAfter: true}
	s.makeUnavailable(&answer, sc, lateHeader())
	for !s.join(sc) {
		if _, err := s.push(x.slot, &sc.out, nil, math.MaxInt64); err != nil {
			break // flush finds the same
		}
		if sc.out.file.left > 0 {
			sc.cur.B = sc.cur.B[:0]
			s.leaveToReactor(x.slot, sc)
			return false
		}
	}
	sc.cur.B = sc.cur.B[:0]
	sc.now = s.reactor.Now()
	s.handBack(x.slot, sc, thenLinger)
	return true
}

// endTimedOut is conclude for a handler that has lost its client, or is about to
// and has returned.
func (s *Server) endTimedOut(sc *scratch, x *exchange) {
	sc.cur.B = sc.cur.B[:0]
	if !x.limit().taken {
		if b := x.streamed(); b != nil {
			b.end(http.ErrHandlerTimeout) // waits until nobody reads
		}
		if !s.takeClient(x, sc) {
			// A file is before it that the client does not take: it gets that, and
			// the end.
			s.handBack(x.slot, sc, thenLinger)
		}
	}
	x.abandon()
}

func lateHeader() http.Header { return http.Header{"Content-Type": {unavailableType}} }

// noteLate counts and logs a handler whose time is over.
func (s *Server) noteLate(limit *handlerLimit, late lateness, stack string) {
	put, message := s.log.error, "handler timed out (503)"
	switch late {
	case lateNot, lateHijacked:
		return
	case lateBegun:
		put, message = s.log.warn, "handler timed out; its answer has begun and goes on"
	}
	s.stats.handlerTimeouts.Add(1)
	put(limitKey{event: "handler timeout", detail: limit.path}, message, "peer", limit.peer, "method", limit.method,
		"path", limit.path, "elapsed", time.Since(limit.at)+s.options.HandlerTimeout, "stack", stack)
}

// stackDumps limits how often all stacks are taken: it stops the world.
type stackDumps struct {
	sync.Mutex
	last time.Time
}

const (
	// stackPeriod is how often at most.
	stackPeriod = time.Second
	// stackSize is how many bytes a goroutine's part of a dump takes, roughly,
	// and stackLimit how many the whole may take.
	stackSize  = 8 << 10
	stackLimit = 64 << 20
)

// stackOf returns the stack of a goroutine, or why there is none.
func (s *Server) stackOf(goroutine int) string {
	s.dumps.Lock()
	defer s.dumps.Unlock()
	now := time.Now()
	if !s.dumps.last.IsZero() && now.Sub(s.dumps.last) < stackPeriod {
		return "not taken: another was less than a second ago"
	}
	s.dumps.last = now
	dump := make([]byte, min((runtime.NumGoroutine()+16)*stackSize, stackLimit))
	if stack := cutStack(dump[:runtime.Stack(dump, true)], goroutine); stack != "" {
		return stack
	}
	return fmt.Sprintf("not found: goroutine %d is not within the first %d bytes of the stacks", goroutine, len(dump))
}

// cutStack finds a goroutine's part in a dump of all; "" if there is none.
func cutStack(dump []byte, goroutine int) string {
	head := []byte("goroutine " + strconv.Itoa(goroutine) + " [")
	for part := range bytes.SplitSeq(dump, []byte("\n\n")) {
		if bytes.HasPrefix(part, head) {
			return string(part)
		}
	}
	return ""
}

// goroutineID asks for the number under which the caller's goroutine appears in
// a dump. The runtime tells it in no other way; that costs microseconds.
func goroutineID() int {
	var space [64]byte
	line := space[:runtime.Stack(space[:], false)]
	line = bytes.TrimPrefix(line, []byte("goroutine "))
	digits, _, _ := bytes.Cut(line, []byte(" "))
	id, err := strconv.Atoi(string(digits))
	if err != nil {
		return 0
	}
	return id
}
