package reactor

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Handler is what a reactor does for its caller. All methods run on the
// reactor's goroutine and must not block: everyone else waits meanwhile.
type Handler[T any] interface {
	// Ready: the reactor owns the client and something happened to it. The
	// events are recorded in the slot as well (Seen).
	Ready(s *Slot[T], events Events)
	// Observed: the peer of a client that a pool goroutine owns has gone
	// (PeerClosed or HungUp), or there is room to write and the owner asked to
	// tell (Slot.WatchWritable). The handler may not touch the client itself.
	Observed(s *Slot[T], events Events)
	// Returned: a client that was posted is the reactor's again.
	Returned(s *Slot[T])
	// Expired: the deadline of a client that the reactor owns has passed. The
	// handler removes it or sets another deadline.
	Expired(s *Slot[T])
	// Acceptable: the listener has connections waiting, or is said to.
	Acceptable(listener int)
	// BatchEnd runs after each batch, once what happened in it is known.
	BatchEnd()
}

// NoDeadline is later than any time.
const NoDeadline = int64(math.MaxInt64)

// ErrStopped is returned by Do once the reactor has ended.
var ErrStopped = errors.New("reactor: stopped")

// Options of a reactor.
type Options struct {
	// Poller is where events come from; nil makes an epoll set.
	Poller Poller
	// ReleaseTimeout is the shortest deadline, from the moment it is set, that a
	// pool goroutine may give to a client that it hands back. It bounds how long
	// the wheel may leave a client unvisited. Default 1 s.
	ReleaseTimeout time.Duration
	// Patience, when set, is asked before the reactor sleeps: it returns how long
	// it may, or a negative duration for as long as it likes.
	Patience func() time.Duration
	// Tick is the precision of deadlines, from 1 ms to 128 ms; they fire up to
	// one tick late. Default 128 ms.
	Tick time.Duration
}

// Reactor watches clients and listeners. Methods are for the reactor's
// goroutine, except Post, Do, Stop, Now and Size.
type Reactor[T any] struct {
	handler Handler[T]
	poller  Poller
	table   table[T]
	wheel   wheel[T]
	start   time.Time
	now     int64 // nanoseconds since start, read once per batch

	releaseTimeout int64
	limit          func() time.Duration // Options.Patience
	lastGeneration uint32
	listeners      map[int]uint32 // descriptor to generation, of those that are armed
	more           bool           // KeepGoing
	handed         bool           // in this batch a client was given to the pool, or an owner woken

	inbox    atomic.Pointer[Slot[T]] // clients that come back, last first
	sleeping atomic.Bool             // Run is, or is about to be, in a Wait that may last
	size     atomic.Int64
	peak     peak

	commands struct {
		sync.Mutex
		list    []func()
		pending atomic.Bool
		closed  bool
	}
	stopping bool
}

// New returns a reactor that reports to the handler once Run is called.
func New[T any](handler Handler[T], options Options) (*Reactor[T], error) {
	poller := options.Poller
	if poller == nil {
		var err error
		if poller, err = NewEpoll(); err != nil {
			return nil, err
		}
	}
	if options.ReleaseTimeout <= 0 {
		options.ReleaseTimeout = time.Second
	}
	if options.Tick <= 0 {
		options.Tick = coarsestTick
	}
	r := &Reactor[T]{
		handler:        handler,
		poller:         poller,
		start:          time.Now(),
		releaseTimeout: int64(options.ReleaseTimeout),
		limit:          options.Patience,
		listeners:      make(map[int]uint32),
	}
	r.wheel.init(&r.table, options.Tick)
	return r, nil
}

// Run serves until Stop. It is the reactor's goroutine.
func (r *Reactor[T]) Run() error {
	events := make([]Event, batchSize)
	busy := false
	for !r.stopping {
		n, err := r.poller.Wait(events, r.patience(busy))
		r.sleeping.Store(false)
		r.now = r.Now()
		if err != nil {
			r.shut()
			return err
		}
		for i := range n {
			r.dispatch(&events[i])
		}
		// In this order: who has posted a client before he asks for something
		// may rely on it that the client has returned when that is done.
		commands := r.takeCommands()
		came := r.collect()
		r.wheel.advance(r.now, r.due)
		obey(commands)
		r.handler.BatchEnd()
		busy = n > 0 || came || r.more
		r.more = false
		if r.handed {
			// Without this a reactor that keeps finding events never leaves its
			// processor: with one processor a task then waits 20 ms for its
			// goroutine to start, with it 0.3 µs.
			r.handed = false
			runtime.Gosched()
			// Every 61st time the scheduler looks into its global queue first
			// (runtime/proc.go, findRunnable), and finds the reactor there: the
			// task would wait after all. It never does so twice in a row.
			runtime.Gosched()
		}
	}
	r.shut()
	return nil
}

// patience says how long to wait for events: not at all while there is work
// about, else until the wheel's next tick.
func (r *Reactor[T]) patience(busy bool) time.Duration {
	if busy {
		return 0
	}
	// First announce the sleep, then look whether something came: whoever posts
	// after the look sees the announcement and wakes us.
	r.sleeping.Store(true)
	if r.inbox.Load() != nil || r.commands.pending.Load() {
		return 0
	}
	patience := r.wheel.next(r.Now())
	if r.limit != nil {
		if limit := r.limit(); limit >= 0 && (patience < 0 || limit < patience) {
			return limit
		}
	}
	return patience
}

func (r *Reactor[T]) dispatch(event *Event) {
	s := r.table.get(event.FD)
	if s == nil || s.generation != event.Generation {
		// A listener, or a stale event of a descriptor that was closed earlier
		// in this batch and may be another client's by now.
		if r.listeners[int(event.FD)] == event.Generation && event.Generation != 0 {
			r.handler.Acceptable(int(event.FD))
		}
		return
	}
	if !s.Owned() {
		*s.reactors() |= seenBits(event.Events)
		r.handler.Ready(s, event.Events)
		return
	}
	owned, woken, tell := s.record(event.Events)
	if !owned { // it has just come back
		r.handler.Ready(s, event.Events)
		return
	}
	// Somebody may wait for the end of a request's context.
	r.handed = r.handed || woken || tell&lasting != 0
	if tell != 0 {
		r.handler.Observed(s, tell)
	}
}

// ClearReadable is Slot.ClearReadable for a client that the reactor owns.
func (r *Reactor[T]) ClearReadable(s *Slot[T]) { *s.reactors() &^= seenBits(Readable) }

// collect takes in the clients that were posted, oldest first.
func (r *Reactor[T]) collect() bool {
	if r.inbox.Load() == nil {
		return false
	}
	var oldest *Slot[T]
	for s := r.inbox.Swap(nil); s != nil; {
		next := s.nextMail
		s.nextMail = oldest
		oldest = s
		s = next
	}
	for s := oldest; s != nil; {
		next := s.nextMail
		s.nextMail = nil
		s.word.And(^wordOwned)
		r.handler.Returned(s)
		s = next
	}
	return true
}

// due is called by the wheel for a slot whose tick has come.
func (r *Reactor[T]) due(s *Slot[T]) {
	generation := s.generation
	if s.word.Load()&wordOwned == 0 {
		if s.deadline > r.now {
			r.wheel.lookBy(s, s.deadline)
			return
		}
		r.handler.Expired(s)
	}
	// The client is still here and nobody asked for a look at it: come by as
	// often as an owner that gives it back may count on.
	if s.generation == generation && s.bucketTick == notLinked {
		r.wheel.lookBy(s, r.now+r.releaseTimeout)
	}
}

// Add registers a connected, non-blocking socket as a client that the reactor
// owns. The caller sets its deadline.
func (r *Reactor[T]) Add(fd int) (*Slot[T], error) {
	if old := r.table.get(int32(fd)); old != nil && old.generation != 0 {
		return nil, fmt.Errorf("reactor: descriptor %d is a client already", fd)
	}
	s := r.table.claim(int32(fd))
	s.generation = r.nextGeneration()
	s.fd = int32(fd)
	s.word.Store(0)
	s.deadline = NoDeadline
	s.bucketTick = notLinked
	if err := r.poller.Add(fd, s.generation); err != nil {
		r.table.free(s.fd)
		return nil, err
	}
	r.size.Store(int64(r.table.size))
	r.peak.turn(r.now, r.table.size)
	return s, nil
}

// nextGeneration numbers the registrations. The numbers start again after 2³²
// of them, a day at fifty thousand connections a second.
func (r *Reactor[T]) nextGeneration() uint32 {
	r.lastGeneration++
	if r.lastGeneration == wakeGeneration {
		r.lastGeneration++
	}
	return r.lastGeneration
}

// Remove forgets a client that the reactor owns. The caller closes the
// descriptor right afterwards, or has taken it out of the set (Detach).
func (r *Reactor[T]) Remove(s *Slot[T]) {
	r.peak.turn(r.now, r.table.size) // before it falls: the period may be over
	r.wheel.unlink(s)
	r.table.free(s.fd)
	r.size.Store(int64(r.table.size))
}

// Detach takes the descriptor of a client out of the set: it reports nothing
// any more. Its owner may call it from any goroutine; the slot stays.
func (r *Reactor[T]) Detach(s *Slot[T]) error { return r.poller.Remove(s.FD()) }

// SetDeadline says when Expired is to be called for a client that the reactor
// owns, on the reactor's clock.
func (r *Reactor[T]) SetDeadline(s *Slot[T], deadline int64) {
	s.deadline = deadline
	if deadline != NoDeadline {
		r.wheel.lookBy(s, deadline)
	}
}

// Take makes a pool goroutine the owner of a client; the caller then hands it
// over. What was seen so far is forgotten, but for the peer's going.
func (r *Reactor[T]) Take(s *Slot[T]) {
	*s.reactors() = wordOwned | *s.reactors()&seenBits(lasting)
	r.wheel.lookBy(s, r.now+r.releaseTimeout)
	r.handed = true
}

// TakeReadable is Take for a client whose bytes have not all been read: its
// Readable stays recorded.
func (r *Reactor[T]) TakeReadable(s *Slot[T]) {
	r.Take(s)
	*s.reactors() |= seenBits(Readable)
}

// Post hands a client back to the reactor by message: Returned is called for
// it soon. For a client that merely waits for its next request Release is
// cheaper. Any goroutine that owns the client.
func (r *Reactor[T]) Post(s *Slot[T]) {
	for {
		last := r.inbox.Load()
		s.nextMail = last
		if r.inbox.CompareAndSwap(last, s) {
			break
		}
	}
	r.wake()
}

// Nudge makes a sleeping reactor look around, and ask Options.Patience again.
// Any goroutine.
func (r *Reactor[T]) Nudge() { r.wake() }

// KeepGoing makes the reactor come back after this batch without sleeping, for
// a client that has more than its share of bytes waiting.
func (r *Reactor[T]) KeepGoing() { r.more = true }

// wake ends a sleep; of those who come together only the first makes the
// system call.
func (r *Reactor[T]) wake() {
	if r.sleeping.Load() && r.sleeping.CompareAndSwap(true, false) {
		// It cannot fail short of a closed eventfd, and then nobody sleeps.
		_ = r.poller.Wake()
	}
}

// Listen starts reporting connections that wait at a listening socket.
func (r *Reactor[T]) Listen(fd int) error {
	if _, armed := r.listeners[fd]; armed {
		return fmt.Errorf("reactor: listener %d is registered already", fd)
	}
	generation := r.nextGeneration()
	if err := r.poller.AddListener(fd, generation); err != nil {
		return err
	}
	r.listeners[fd] = generation
	return nil
}

// Unlisten stops it. A listener that is not accepted from must not stay armed:
// being level-triggered it would be reported without end.
func (r *Reactor[T]) Unlisten(fd int) error {
	if _, armed := r.listeners[fd]; !armed {
		return nil
	}
	delete(r.listeners, fd)
	return r.poller.Remove(fd)
}

// Forget is Unlisten for a listener whose descriptor has been closed already:
// the number may belong to another socket by now.
func (r *Reactor[T]) Forget(fd int) { delete(r.listeners, fd) }

// Each calls f for every client. The state of those that a pool goroutine owns
// must not be touched.
func (r *Reactor[T]) Each(f func(s *Slot[T], owned bool)) {
	r.table.each(func(s *Slot[T]) { f(s, s.word.Load()&wordOwned != 0) })
}

// Now is the reactor's clock: nanoseconds since it was made.
func (r *Reactor[T]) Now() int64 { return int64(time.Since(r.start)) }

// BatchTime is the clock as read at the start of the present batch.
func (r *Reactor[T]) BatchTime() int64 { return r.now }

// SizeMax is the highest number of clients in this and the last period of ten
// seconds: it falls with time, not by being read, so that two readers do not
// disturb each other. Reactor's goroutine only.
func (r *Reactor[T]) SizeMax() int {
	r.peak.turn(r.now, r.table.size)
	return max(r.peak.current, r.peak.previous)
}

// peak keeps the maximum of a number over the current and the previous period.
type peak struct {
	began             int64
	current, previous int
}

const peakPeriod = int64(10 * time.Second)

func (p *peak) turn(now int64, value int) {
	if elapsed := now - p.began; elapsed >= peakPeriod {
		p.previous = p.current
		if elapsed >= 2*peakPeriod {
			p.previous = value
		}
		p.current, p.began = value, now
	}
	p.current = max(p.current, value)
}

// Size is the number of clients.
func (r *Reactor[T]) Size() int { return int(r.size.Load()) }
