package worker

import (
	"context"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/catamount-server/catamount/parser"
	"github.com/catamount-server/catamount/reactor"
	"github.com/catamount-server/catamount/threadpool"
	"github.com/valyala/bytebufferpool"
)

// scratch is the memory of one pool place: what a request needs while it is
// served, reused by the next one on the same place.
type scratch struct {
	place  int
	holder *threadpool.Place
	out    output                     // finished answers not sent yet
	cur    *bytebufferpool.ByteBuffer // of the answer being made; see join
	hold   []byte                     // body bytes held back, see holdLimit
	head   parser.Head
	fields []headerField
	last   *exchange // of the last answer in out, for the log
	now    int64     // the clock, as last read
	tally  tally
	loan   *loan
	watch  *handlerWatch
}

func scratchOf(place *threadpool.Place) *scratch {
	sc, ok := place.Local.(*scratch)
	if !ok {
		sc = newScratch(place.Index, place)
		place.Local = sc
	}
	return sc
}

// newScratch makes one for a place; holder is nil for the reactor's.
func newScratch(place int, holder *threadpool.Place) *scratch {
	return &scratch{place: place, holder: holder, out: newOutput(), cur: outPool.Get(), hold: make([]byte, 0, holdLimit)}
}

// turnBudget bounds how long one client may be served in a row while others
// wait: long enough for a batch of small pipelined requests to be answered with
// one write, too short to be noticed.
const turnBudget = 200 * time.Microsecond

// outcome of serving one request.
type outcome uint8

const (
	outcomeKeepAlive outcome = iota
	outcomeClose             // after the output, see Client.then
	outcomeHijacked          // the client is no longer the place's; also after HandlerTimeout
)

// process runs on a pool goroutine and owns the client: it serves the request
// that is whole, and then those that follow, as long as that is fair.
func (s *Server) process(place *threadpool.Place, sl *slot) {
	sc := scratchOf(place)
	c := &sl.Value
	if !place.Continues() {
		sc.now = s.reactor.Now() // else it has just been read, at the end of the last request
	}
	if s.options.HandlerTimeout > 0 {
		s.prepareWatch(sc, place.Continues())
	}
	x := c.exchange.Load()
	if x == nil { // blocking mode: the first request has not been read yet
		if x = s.finish(sl, sc); x == nil {
			return
		}
	} else if s.isOverdue(x, sc.now) {
		s.refuseOverload(sl, sc, OverloadAge)
		return
	}
	gone := false
	defer func() {
		if place.Detached() {
			s.forgetLoan(sc) // another place may have taken its number meanwhile
		}
		if !gone && !x.response.hijacked && !x.response.timedOut() { // the handler ended its goroutine (runtime.Goexit)
			sc.cur.B = sc.cur.B[:0] // or a panic of ours: then the place, and with it the buffer, is the next client's
			after := c.then
			if after == thenIdle {
				after = thenClose // it never came to conclude
			}
			s.handBack(sl, sc, after)
		}
	}()
	turn := sc.now
	s.stats.observeQueueWait(place.Index, sc.now-x.queuedAt)
	for inline := 1; ; inline++ {
		result := s.serve(place, sc, x)
		sc.now = s.reactor.Now()
		if result == outcomeHijacked {
			gone = true
			return
		}
		if result == outcomeClose {
			gone = true
			s.handBack(sl, sc, c.then)
			return
		}
		if x = s.next(sl, sc, inline, turn); x == nil {
			gone = true
			return
		}
		sc.tally.inPlace++
	}
}

// serve runs the handler and completes the answer; sending it is for later,
// so that the answers to pipelined requests leave together.
func (s *Server) serve(place *threadpool.Place, sc *scratch, x *exchange) (result outcome) {
	w := &x.response
	x.place = int32(place.Index)
	if limit := s.options.Timeouts.Write; limit > 0 {
		w.deadline = sc.now + int64(limit)
	}
	if w.place = place; w.scratch == nil { // else the reactor may be looking at it, see inlineOrRequeue
		w.scratch = sc
	}
	sc.hold = sc.hold[:0]
	x.client().served++
	if sc.watch != nil {
		sc.watch.begin(x, s.options.HandlerTimeout)
	}
	if s.options.Slot != nil {
		s.options.Slot.Begin(place.Index, x.request.Method, x.request.RequestURI)
	}
	returned := false
	defer func() {
		if !returned {
			s.handlerFailed(x, recover())
		}
		result = s.conclude(place, sc, x)
	}()
	s.handler(x).ServeHTTP(w, &x.request)
	returned = true
	return
}

// handler returns the application, or the server's own answer to OPTIONS *,
// which asks about the server and not about a resource (RFC 9110 section 9.3.7).
func (s *Server) handler(x *exchange) http.Handler {
	if x.request.RequestURI == "*" && x.request.Method == http.MethodOptions && !s.options.AppOptions {
		return http.HandlerFunc(serverOptions)
	}
	return s.options.Handler
}

func serverOptions(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Length", "0")
	if r.ContentLength != 0 {
		w.Header().Set("Connection", "close")
	}
}

// handlerFailed: the handler panicked, or ended its goroutine (v is nil then).
// The answer is cut, so that the client notices.
func (s *Server) handlerFailed(x *exchange, v any) {
	w := &x.response
	w.mu.Lock()
	w.cut, w.closeAfter = true, true
	w.mu.Unlock()
	if v == http.ErrAbortHandler {
		return
	}
	s.stats.panics.Add(1)
	s.log.handlerPanic(x, v, debug.Stack())
}

// conclude ends an exchange: from here on nothing that the handler kept can
// reach the connection.
func (s *Server) conclude(place *threadpool.Place, sc *scratch, x *exchange) outcome {
	w := &x.response
	w.finish()
	if s.options.Slot != nil && !place.Detached() {
		s.options.Slot.End(place.Index)
	}
	if s.options.OnRequest != nil {
		s.noteAccess(sc, x)
	}
	if sc.watch != nil {
		s.endWatch(sc.watch, x)
	}
	if w.timedOut() {
		s.endTimedOut(sc, x)
		return outcomeHijacked
	}
	s.joinLast(sc, w)
	if x.streamed() != nil && !w.hijacked && !s.endStream(x) {
		w.closeAfter, w.asked = true, false
	}
	x.abandon()
	if w.hijacked {
		return outcomeHijacked
	}
	c := x.client()
	status := w.status
	if w.cut {
		status = 0
	}
	sc.tally.countAnswer(status)
	if w.err == nil || w.begun {
		sc.last = x // else there are only the answers before it in the output
	}
	switch {
	case w.err != nil && w.begun:
		s.drop(&sc.out) // what is left of it has been reported
		c.then = thenClose
		return outcomeClose
	case w.err != nil || w.cut: // but the answers before it are not
		c.then = thenLinger
		if w.cut && s.cutShort(x) {
			c.then = thenClose
		}
		return outcomeClose
	case w.closeAfter:
		c.then = thenClose
		if !w.asked || c.HasBackToBackRequests() || x.streamed() != nil || x.slot.Seen()&reactor.Readable != 0 {
			// A client that cannot know may have sent another request already.
			// Closing with unread bytes would reset the connection and take the
			// answer from it.
			c.then = thenLinger
		}
		return outcomeClose
	}
	return outcomeKeepAlive
}

// abandon ends what belongs to the request: its context, its body, the files
// of a multipart form.
func (x *exchange) abandon() {
	x.context.cancel(context.Canceled)
	if x.body != nil {
		x.body.release(http.ErrBodyReadAfterClose)
	}
	if x.request.MultipartForm != nil {
		_ = x.request.MultipartForm.RemoveAll()
	}
}

// next finds the client's next request, or gives the client away and returns
// nil: to the back of the todo, or to the reactor.
func (s *Server) next(sl *slot, sc *scratch, inline int, turn int64) *exchange {
	c := &sl.Value
	for {
		if s.keepsFor(c) {
			s.sendOn(sl, sc)
			return nil
		}
		if c.HasBackToBackRequests() {
			x, err := s.TryToFinish(sl, &sc.head, nil, sc.now)
			if err != nil {
				s.refuseFromPool(sl, sc, err, nil)
				return nil
			}
			if x != nil {
				return s.inlineOrRequeue(sl, sc, x, inline, turn)
			}
		}
		c.exchange.Store(nil)
		if !s.flush(sl, sc, thenIdle) {
			return nil
		}
		if err := s.sendContinue(sl); err != nil {
			s.clientFailed(c, err)
			s.handBack(sl, sc, thenClose)
			return nil
		}
		if sl.Seen()&(reactor.Readable|reactor.PeerClosed|reactor.HungUp) == 0 {
			if s.giveBack(sl, sc) {
				return nil
			}
		}
		x, gone := s.readOnce(sl, sc)
		if gone {
			return nil
		}
		if x != nil {
			return s.inlineOrRequeue(sl, sc, x, inline, turn)
		}
	}
}

// inlineOrRequeue keeps a fair order: the next request of the same client is
// served at once while nobody waits, or while the few microseconds of its turn
// last; else it goes to the back of the todo, like a new one.
func (s *Server) inlineOrRequeue(sl *slot, sc *scratch, x *exchange, inline int, turn int64) *exchange {
	x.queuedAt = sc.now
	inPlace := inline < s.options.MaxFastInline && !sc.holder.Detached() && (!s.pool.HasBacklog() || sc.now-turn < int64(turnBudget))
	if inPlace && sc.out.size() <= sendThreshold {
		s.lend(sl, sc)
		// From here on the reactor may find the request, and with it the output.
		x.response.scratch = sc
		s.announce(sl, x)
		return x
	}
	// First nothing is lent any more: else the reactor could look into a request
	// that another place is about to begin.
	s.settleLoan(sc)
	s.announce(sl, x) // before the flush: should the reactor have to write on, it goes on with it
	if !s.flush(sl, sc, thenIdle) {
		return nil
	}
	if inPlace {
		return x
	}
	if err := s.submit(sl, 1); err != nil {
		s.refusedByPool(sl, sc, err)
	}
	return nil
}

// announce lets the reactor see the request that is next, to tell it that its
// peer has gone.
func (s *Server) announce(sl *slot, x *exchange) {
	sl.Value.exchange.Store(x)
	if sl.Seen()&(reactor.PeerClosed|reactor.HungUp) != 0 {
		s.peerGone(sl) // before this request began
	}
}

// giveBack returns a client to the reactor, to wait for its next bytes. False:
// something came meanwhile, the client is still ours.
func (s *Server) giveBack(sl *slot, sc *scratch) bool {
	c := &sl.Value
	s.setState(c, StateIdle, sc.now)
	if !s.options.QueueRequests {
		return s.waitForBytes(sl, sc)
	}
	if c.pending != nil || s.draining.Load() {
		// Its deadline may be near, or its end: the reactor has to hear of it.
		s.reactor.Post(sl)
		return true
	}
	deadline := reactor.NoDeadline
	if s.options.Timeouts.Idle > 0 {
		deadline = sc.now + int64(s.options.Timeouts.Idle)
	}
	sl.SetDeadline(deadline)
	_, released := sl.Release()
	if released && s.draining.Load() {
		// Shutdown may have looked for idle clients just before this was one.
		_ = s.reactor.Do(s.drainWaiting)
	}
	return released
}

// readOnce reads on the pool goroutine what the reactor reported while the
// client was ours.
func (s *Server) readOnce(sl *slot, sc *scratch) (x *exchange, gone bool) {
	c := &sl.Value
	sl.ClearReadable()
	target := s.bodyRoom(c)
	if target == nil {
		buffer := takeWhole(&readPool, readOnceSize)
		defer putWhole(&readPool, buffer)
		target = buffer.B
	}
	n, err := s.sockets.receive(sl.FD(), target)
	switch {
	case err == errWouldBlock:
		return nil, false
	case err != nil:
		s.clientFailed(c, err)
		s.handBack(sl, sc, thenClose)
		return nil, true
	case n == 0:
		s.clientLeft(c)
		s.handBack(sl, sc, thenClose)
		return nil, true
	}
	if n == len(target) {
		sl.MarkReadable()
	}
	s.stats.bytesIn.Add(uint64(n))
	x, err = s.TryToFinish(sl, &sc.head, target[:n], sc.now)
	if err != nil {
		s.refuseFromPool(sl, sc, err, target[:n])
		return nil, true
	}
	return x, false
}

const readOnceSize = 16 << 10

// post hands the client to the reactor by message.
func (s *Server) post(sl *slot, state State, now int64) {
	s.setState(&sl.Value, state, now)
	s.reactor.Post(sl)
}

// handBack hands a client whose time with the pool is over to the reactor:
// what remains of the output is written there, and then it is closed.
func (s *Server) handBack(sl *slot, sc *scratch, after then) {
	sl.Value.exchange.Store(nil)
	if s.flush(sl, sc, after) {
		sl.Value.then = after
		state := StateClosed
		if after == thenLinger {
			state = StateLingering
		}
		s.post(sl, state, sc.now)
	}
}
