package worker

import (
	"sync/atomic"
	"time"

	"github.com/catamount-server/catamount/internal/page"
)

// Siblings share the listening sockets, and all of them are woken when a
// connection waits: the sockets are watched level-triggered and non-exclusively,
// so that whoever declines takes nothing from the others. Who accepts is decided
// by what the shared page says of everybody's load, one connection at a time.
// Declining is never for long: what siblings claim may be out of date, or they
// may be stopped. While a worker declines it takes the listener out of its
// reactor, which would report it without end.

const (
	// siblingPatience is how long a worker with a place free leaves a connection
	// to a sibling that has less to do, before it accepts all the same.
	siblingPatience = time.Millisecond
	// placePatience is how long one without leaves it to a sibling that has one,
	// or to whoever gets one first: in the kernel's queue the first free place
	// takes it, and a worker that dies does not take it along. It is bounded so
	// that handlers that hang cannot keep the answers of overload.go from
	// newcomers, and nobody waits for a stopped sibling for long.
	placePatience = 50 * time.Millisecond
	// lookPeriod is how often one who declines looks whether the connection still
	// waits. If nobody waits at one of those moments, what waits later is another
	// connection, with patience of its own.
	lookPeriod = 5 * time.Millisecond
	// busySlack is how many requests more than a sibling a worker may have
	// without being clearly busier.
	busySlack = 1
)

// load is what is known of a worker when a connection waits.
type load struct {
	busy        int64 // requests that run or wait for a place
	places      int64
	connections int64
}

func (l load) isFree() bool { return l.busy < l.places }

// hasLess: a connection is better off with l, who has a place free, than with
// mine.
func (l load) hasLess(mine load) bool {
	if !l.isFree() {
		return false
	}
	if l.busy+busySlack < mine.busy || !mine.isFree() {
		return true
	}
	// Idle connections are requests to come.
	return l.busy <= mine.busy && l.connections+connectionSlack(l.connections) < mine.connections
}

// connectionSlack is how many connections more a worker may have than one with n.
func connectionSlack(n int64) int64 { return 1 + n/8 }

// decide says whether the worker with mine accepts a connection that waits, or
// else how long it is to leave it to the others. Of two workers at most one
// declines in favour of the other. kept is a connection that a sibling hands
// over: as a rule it is idle, and needs no place yet.
func decide(mine load, siblings []load, kept bool) (accept bool, patience time.Duration) {
	for _, sibling := range siblings {
		switch {
		case !sibling.hasLess(mine):
		case mine.isFree() || kept:
			return false, siblingPatience
		default:
			return false, placePatience
		}
	}
	if mine.isFree() || kept {
		return true, 0
	}
	// No place is free anywhere. Where requests of connections that are kept
	// alive queue for places a newcomer joins the queue: in the kernel's it would
	// be passed over by them, time and again.
	if mine.busy == mine.places {
		return false, placePatience
	}
	for _, sibling := range siblings {
		if sibling.busy < mine.busy {
			return false, siblingPatience
		}
	}
	return true, 0
}

// siblings is what the gate knows of the other workers. It is the reactor's.
type siblings struct {
	page  *page.Page
	index int
	own   *page.Slot

	loads  []load
	known  []sibling // by slot
	passed int       // listeners at which connections are passed over
	// since is when the one that waits was first passed over, on the reactor's
	// clock, and until is how long; 0: none is.
	since, until int64
	looks        int // how often it was seen to wait since then
	// granted: lookAgain has decided to accept one.
	granted bool
	// fresh counts the connections accepted in this batch and the one before it,
	// the last of them at freshAt: their requests are not in the todo yet.
	fresh, fresher, freshAt int64
	published               int64       // Connections, as last written
	awaitsPlace             atomic.Bool // the pool will tell when a place is free
}

// freshTime is how long a connection's first request may be on its way.
const freshTime = int64(2 * time.Millisecond)

// sibling is what is remembered of one.
type sibling struct {
	seenAt int64 // its ReactorAt when a connection was left to it
	waited int64 // how long connections have been left to it in vain since then
	// suspect: it did not move while connections waited for it. What its slot
	// says does not count until it does.
	suspect bool
	trusted bool // a connection is being left to it
}

// suspectAfter is how long connections are left to a sibling that does not
// move: it is stopped. Shorter times pass while it waits for a processor.
const suspectAfter = int64(5 * time.Millisecond)

func newSiblings(o *Options) *siblings {
	if o.Page == nil || o.Slot == nil {
		return nil
	}
	return &siblings{page: o.Page, index: o.Index, own: o.Slot,
		known: make([]sibling, o.Page.Slots()), loads: make([]load, 0, o.Page.Slots())}
}

// others returns the loads of the siblings that accept.
func (g *siblings) others() []load {
	g.loads = g.loads[:0]
	for i := range g.known {
		if i == g.index {
			continue
		}
		slot := g.page.Slot(i)
		if page.State(slot.State.Load()) != page.Live {
			continue
		}
		if k := &g.known[i]; k.suspect {
			if slot.ReactorAt.Load() == k.seenAt {
				continue
			}
			k.suspect, k.waited = false, 0
		}
		g.loads = append(g.loads, loadOf(slot))
	}
	return g.loads
}

func loadOf(slot *page.Slot) load {
	return load{busy: slot.Busy.Load(), places: slot.Places.Load(), connections: slot.Connections.Load()}
}

// mine is the load of this worker. Connections whose requests are on their way
// take places, but are no backlog.
func (g *siblings) mine(now int64) load {
	mine := loadOf(g.own)
	if now-g.freshAt > freshTime {
		g.fresh, g.fresher = 0, 0
	}
	mine.busy = max(mine.busy, min(mine.busy+g.fresh+g.fresher, mine.places))
	return mine
}

// hasLive reports whether a sibling accepts connections, or will when it gets a
// processor again.
func (g *siblings) hasLive() bool {
	for i := range g.known {
		if i != g.index && page.State(g.page.Slot(i).State.Load()) == page.Live {
			return true
		}
	}
	return false
}

// mayAccept decides about a connection that waits. After false it is to be asked
// again by g.until.
func (g *siblings) mayAccept(now int64, kept bool) bool {
	if g.granted {
		g.granted = false
		return true
	}
	mine := g.mine(now)
	accept, patience := decide(mine, g.others(), kept)
	switch {
	case accept:
	case g.since == 0:
		g.leave(now, patience)
		return false
	case now-g.since < int64(patience) || g.looks < looksBefore(patience):
		g.lookBy(now, patience)
		return false
	case !mine.isFree() && !kept && g.betterMoves(mine):
		// What waits now is not what waited before.
		g.leave(now, patience)
		return false
	default:
		g.mistrust(now - g.since)
	}
	g.since = 0
	return true
}

// leave begins to leave a connection to the siblings.
func (g *siblings) leave(now int64, patience time.Duration) {
	g.since, g.looks = now, 0
	g.trust()
	g.lookBy(now, patience)
}

// betterMoves reports whether a sibling with a place free, which is better for
// whoever waits than this worker, has been at work since the connection was left
// to it: then it takes those that wait, though at each look another one does.
func (g *siblings) betterMoves(mine load) bool {
	for i := range g.known {
		slot := g.page.Slot(i)
		if k := &g.known[i]; k.trusted && slot.ReactorAt.Load() != k.seenAt && loadOf(slot).hasLess(mine) {
			return true
		}
	}
	return false
}

// looksBefore is how often a connection must be seen to wait before its time can
// be over: a worker that gets no processor looks rarely, and one look may find a
// connection that has only just come.
func looksBefore(patience time.Duration) int { return int(patience/lookPeriod) * 4 / 5 }

// lookBy sets the time of the next look at a connection that is passed over.
func (g *siblings) lookBy(now int64, patience time.Duration) {
	g.until = now + int64(lookPeriod)
	if over := g.since + int64(patience); over > now {
		g.until = min(g.until, over)
	}
}

// trust remembers where the siblings are when a connection is left to them.
func (g *siblings) trust() {
	for i := range g.known {
		slot := g.page.Slot(i)
		if k := &g.known[i]; !k.suspect && i != g.index && page.State(slot.State.Load()) == page.Live {
			if at := slot.ReactorAt.Load(); at != k.seenAt {
				k.seenAt, k.waited = at, 0
			}
			k.trusted = true
		} else {
			k.trusted = false
		}
	}
}

// mistrust is called when a connection has been left to the siblings for so long.
// Those that have not moved meanwhile become suspect.
func (g *siblings) mistrust(waited int64) {
	for i := range g.known {
		if k := &g.known[i]; k.trusted && g.page.Slot(i).ReactorAt.Load() == k.seenAt {
			k.waited += waited
			k.suspect = k.waited >= suspectAfter
		}
	}
}

// accepted is called after each accept: siblings see it at once.
func (g *siblings) accepted(now int64, connections int) {
	g.fresher++
	g.freshAt = now
	g.publish(int64(connections))
}

func (g *siblings) publish(connections int64) {
	if connections != g.published {
		g.published = connections
		g.own.Connections.Store(connections)
	}
}

// mayAccept is asked before each accept.
func (s *Server) mayAccept(l *listener) bool {
	g := s.gate.siblings
	if g == nil || g.mayAccept(s.reactor.Now(), l.kept) {
		return true
	}
	s.passOver(l)
	return false
}

// passOver leaves what waits at a listener to the siblings, for a while.
func (s *Server) passOver(l *listener) {
	s.disarm(l)
	l.passed = true
	s.gate.siblings.passed++
	s.awaitPlace()
}

// awaitPlace makes a free place of this worker's end the waiting.
func (s *Server) awaitPlace() {
	g := s.gate.siblings
	if s.pool.Full() && g.awaitsPlace.CompareAndSwap(false, true) {
		s.whenNotFull(func() {
			g.awaitsPlace.Store(false)
			s.reactor.Nudge()
		})
	}
}

// lookAgain is called after each batch while connections are passed over.
func (s *Server) lookAgain() {
	g := s.gate.siblings
	if s.gate.paused || s.gate.shut || s.draining.Load() {
		return
	}
	for _, l := range *s.gate.table.Load() {
		if !l.passed {
			continue
		}
		now := s.reactor.Now()
		if accept, _ := decide(g.mine(now), g.others(), l.kept); !accept {
			if now < g.until {
				s.awaitPlace()
				continue
			}
			if !isReadable(l.fd) {
				l.passed = false
				g.passed--
				g.nobodyWaits()
				if err := s.arm(l); err != nil {
					s.acceptFailed(l, err)
				}
				continue
			}
			g.looks++
			if !g.mayAccept(now, l.kept) {
				s.awaitPlace()
				continue
			}
		}
		s.takeUp(l)
	}
}

// takeUp accepts one connection of those that were passed over, if there is one,
// and goes on as usual.
func (s *Server) takeUp(l *listener) {
	g := s.gate.siblings
	l.passed = false
	g.passed--
	g.granted = true
	err := l.raw.Control(l.accept)
	g.granted = false
	if err == nil {
		err = l.failed
	}
	if err == nil && !l.passed {
		err = s.arm(l)
	}
	if err != nil {
		s.acceptFailed(l, err)
	}
}

// nobodyWaits is called when accept has found a queue empty.
func (g *siblings) nobodyWaits() {
	if g != nil && g.passed == 0 {
		g.since = 0
	}
}

// endBatch is the gate's part of the end of a batch.
func (s *Server) endBatch() {
	g := s.gate.siblings
	if g == nil {
		return
	}
	if g.passed > 0 {
		s.lookAgain()
	}
	g.fresh, g.fresher = g.fresher, 0
	g.publish(int64(s.reactor.Size()))
	if now := page.Now(); now-g.own.ReactorAt.Load() >= int64(time.Millisecond) {
		g.own.ReactorAt.Store(now)
	}
}

// showAccepting tells the siblings that this worker accepts nobody for a while,
// so that they leave nothing to it, or that it does again.
func (s *Server) showAccepting(accepts bool) {
	slot := s.options.Slot
	if slot == nil {
		return
	}
	from, to := uint32(page.Live), uint32(page.Booting)
	if accepts {
		from, to = to, from
	}
	slot.State.CompareAndSwap(from, to) // not one that leaves
}

// patienceOfGate is how long the reactor may sleep while a connection is passed
// over.
func (s *Server) patienceOfGate(limit time.Duration) time.Duration {
	g := s.gate.siblings
	if g == nil || g.passed == 0 {
		return limit
	}
	now := s.reactor.Now()
	if accept, _ := decide(g.mine(now), g.others(), false); accept {
		return 0 // a place has become free since the reactor looked
	}
	left := max(time.Duration(g.until-now), 0)
	if limit >= 0 {
		left = min(left, limit)
	}
	return left
}
