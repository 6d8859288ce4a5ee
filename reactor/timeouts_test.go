package reactor

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// choices decide what a model test does next: a random source, or a fuzzer's
// bytes.
type choices interface {
	// below returns a number in [0, n).
	below(n int) int
	more() bool
}

type randomChoices struct {
	*rand.Rand
	left int
}

func (c *randomChoices) below(n int) int { return c.IntN(n) }
func (c *randomChoices) more() bool      { c.left--; return c.left >= 0 }

type byteChoices []byte

func (c *byteChoices) more() bool { return len(*c) > 0 }
func (c *byteChoices) below(n int) int {
	number := 0
	for scale := 1; scale < n && len(*c) > 0; scale <<= 8 {
		number = number<<8 | int((*c)[0])
		*c = (*c)[1:]
	}
	return number % n
}

// modelled is what the naive implementation keeps of a client.
type modelled struct {
	deadline int64 // the one that counts now
	since    int64 // when it was set, or the client given back
	owned    bool
}

// wheelModel drives the real timeouts of a reactor beside a naive list of
// deadlines, as a reactor and its pool would.
type wheelModel struct {
	t       testing.TB
	r       *Reactor[int]
	clients map[int32]*modelled
	now     int64 // the true time; the reactor's is that of its last batch
	width   int64
	visits  int
}

const modelReleaseTimeout = 700 * time.Millisecond

func newWheelModel(t testing.TB, tick time.Duration, start int64) *wheelModel {
	r, hooks := newParts[int](t, Options{Tick: tick, ReleaseTimeout: modelReleaseTimeout})
	m := &wheelModel{t: t, r: r, clients: map[int32]*modelled{}, width: int64(tick), now: start}
	m.advance(start)
	hooks.OnExpired = func(s *Slot[int]) { m.expired(s) }
	return m
}

// expired: as handlers do, half of them remove the client and the others give
// it a new deadline.
func (m *wheelModel) expired(s *Slot[int]) {
	client := m.clients[s.fd]
	switch {
	case client == nil:
		m.t.Fatalf("client %d expired after it was removed", s.fd)
	case client.owned:
		m.t.Fatalf("client %d expired while a pool goroutine owns it", s.fd)
	case client.deadline > m.now:
		m.t.Fatalf("client %d expired %v before its deadline", s.fd, time.Duration(client.deadline-m.now))
	}
	if s.fd%2 == 0 {
		m.r.Remove(s)
		delete(m.clients, s.fd)
	} else {
		m.r.SetDeadline(s, NoDeadline)
		client.deadline = NoDeadline
	}
}

// latest is when the client must have expired at last, given that the wheel is
// advanced in time: one tick after its deadline, or after it was set when it
// lay in the past already.
func (m *wheelModel) latest(c *modelled) int64 {
	if c.owned || c.deadline > math.MaxInt64-m.width {
		return math.MaxInt64
	}
	return max(c.deadline, c.since) + m.width
}

// advance is the reactor's batch at a time.
func (m *wheelModel) advance(now int64) {
	m.now, m.r.now = now, now
	m.r.wheel.advance(now, func(s *Slot[int]) { m.visits++; m.r.due(s) })
	for fd, c := range m.clients {
		if latest := m.latest(c); latest <= now {
			m.t.Fatalf("client %d: deadline %v, set at %v, not expired at %v",
				fd, time.Duration(c.deadline), time.Duration(c.since), time.Duration(now))
		}
	}
}

// sleep advances as a reactor does that has nothing else to do.
func (m *wheelModel) sleep(until int64) {
	for first := true; ; first = false {
		next := m.r.wheel.next(m.now)
		if next < 0 || m.now+int64(next) > until {
			break
		}
		if next == 0 && !first {
			m.t.Fatal("the wheel is due again at the time to which it was advanced")
		}
		m.advance(m.now + int64(next))
	}
	m.advance(until)
}

// check looks whether wheel and table agree, and that the reactor would not
// sleep too long.
func (m *wheelModel) check() {
	w, linked := &m.r.wheel, 0
	for bucket, head := range w.heads {
		if used := w.used[bucket/64]&(1<<(bucket%64)) != 0; used != (head != noNeighbour) {
			m.t.Fatalf("bucket %d: used = %t, head %d", bucket, used, head)
		}
		previous := noNeighbour
		for fd := head; fd != noNeighbour; fd = w.table.get(fd).next {
			s := w.table.get(fd)
			if s.generation == 0 || s.prev != previous || int(s.bucketTick%wheelBuckets) != bucket {
				m.t.Fatalf("bucket %d: client %d is free, or its links are wrong", bucket, fd)
			}
			previous = fd
			linked++
		}
	}
	if linked != w.linked {
		m.t.Fatalf("%d clients in buckets, the wheel counts %d", linked, w.linked)
	}
	next := int64(w.next(m.now))
	for fd, c := range m.clients {
		s := w.table.get(fd)
		if s.bucketTick == notLinked {
			if c.owned || c.deadline != NoDeadline {
				m.t.Fatalf("client %d was lost: deadline %v, owned %t", fd, time.Duration(c.deadline), c.owned)
			}
			continue
		}
		if next < 0 || m.latest(c) < math.MaxInt64 && m.now+next > max(m.latest(c), m.now) {
			m.t.Fatalf("next is %v, the deadline of client %d in %v", time.Duration(next), fd, time.Duration(c.deadline-m.now))
		}
	}
}

// span returns a time from nothing to beyond the wheel's turn.
func (m *wheelModel) span(c choices) int64 {
	switch c.below(4) {
	case 0:
		return int64(c.below(int(m.width)))
	case 1:
		return int64(c.below(16)) * m.width
	case 2:
		return int64(c.below(wheelBuckets)) * m.width
	default:
		return int64(c.below(4*wheelBuckets))*m.width + int64(c.below(1000))
	}
}

// step does one thing to one client, or lets time pass.
func (m *wheelModel) step(c choices) {
	defer m.check()
	if c.below(4) == 0 {
		m.pass(c)
		return
	}
	fd := int32(c.below(200))
	client := m.clients[fd]
	s := m.r.table.get(fd)
	switch {
	case client == nil:
		s, err := m.r.Add(int(fd))
		if err != nil {
			m.t.Fatal(err)
		}
		m.clients[fd] = &modelled{deadline: NoDeadline}
		m.set(c, s)
	case client.owned:
		// The owner, at a time between two batches.
		m.now = m.r.now + int64(c.below(int(m.width)))
		client.deadline = m.now + int64(modelReleaseTimeout) + m.span(c)
		if c.below(8) == 0 {
			client.deadline = NoDeadline
		}
		client.since, client.owned = m.now, false
		s.SetDeadline(client.deadline)
		if _, released := s.Release(); !released {
			m.t.Fatal("Release refused")
		}
	case c.below(8) == 0:
		m.r.Remove(s)
		delete(m.clients, fd)
	case c.below(3) == 0:
		m.r.Take(s)
		client.owned = true
	default:
		m.set(c, s)
	}
}

func (m *wheelModel) set(c choices, s *Slot[int]) {
	client := m.clients[s.fd]
	m.now = m.r.now
	client.since, client.deadline = m.now, m.now+m.span(c)
	switch c.below(10) {
	case 0:
		client.deadline = m.now - m.span(c) // may be before the beginning of time
	case 1:
		client.deadline = NoDeadline
	case 2:
		client.deadline = NoDeadline - 1 - int64(c.below(1000))
	}
	m.r.SetDeadline(s, client.deadline)
}

func (m *wheelModel) pass(c choices) {
	until := max(m.now, m.r.now+m.span(c))
	switch c.below(3) {
	case 0: // the reactor was held up
		m.advance(until)
	case 1: // a busy reactor advances with each batch
		m.advance(min(until, m.r.now+int64(c.below(int(2*m.width)))))
	default:
		m.sleep(until)
	}
}

func (m *wheelModel) run(c choices) {
	for c.more() {
		m.step(c)
	}
	// Nobody is forgotten, however long it takes.
	for fd, client := range m.clients {
		if client.owned {
			m.r.table.get(fd).SetDeadline(m.now + int64(modelReleaseTimeout))
			m.r.table.get(fd).Release()
			*client = modelled{deadline: m.now + int64(modelReleaseTimeout), since: m.now}
		}
	}
	m.sleep(m.now + 10*wheelBuckets*m.width)
	for fd, client := range m.clients {
		if client.deadline < m.now {
			m.t.Fatalf("client %d never expired", fd)
		}
	}
}

func TestWheelAgainstModel(t *testing.T) {
	for _, tick := range []time.Duration{finestTick, 7 * time.Millisecond, 50 * time.Millisecond, coarsestTick} {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("%v/%d", tick, seed), func(t *testing.T) {
				m := newWheelModel(t, tick, 0)
				m.run(&randomChoices{rand.New(rand.NewPCG(seed, 5)), 1500})
			})
		}
	}
}

// A server runs for years: 2³² ticks of a millisecond are 50 days.
func TestWheelInOldAge(t *testing.T) {
	for _, tick := range []time.Duration{finestTick, coarsestTick} {
		for _, age := range []int64{1 << 31, 1<<32 - 1000, 1 << 33} {
			t.Run(fmt.Sprintf("%v/%d", tick, age), func(t *testing.T) {
				m := newWheelModel(t, tick, age*int64(tick))
				m.run(&randomChoices{rand.New(rand.NewPCG(6, 7)), 1000})
			})
		}
	}
}

// A reactor that was held up, or slept long, finds all that is due at once.
func TestWheelAfterLongSleep(t *testing.T) {
	const clients = wheelBuckets - 1 // one for each tick that the wheel spans
	for _, sleep := range []int64{1, 500, clients - 1, clients, clients + 1, clients + 2, clients + 700,
		2*wheelBuckets - 1, 2 * wheelBuckets, 2*wheelBuckets + 1, 1 << 40} {
		for _, start := range []int64{0, 1, 777} {
			m := newWheelModel(t, finestTick, start*int64(finestTick))
			for fd := range int32(clients) {
				s := addClient(t, m.r, int(fd))
				m.clients[fd] = &modelled{deadline: m.now + int64(fd+1)*m.width, since: m.now}
				m.r.SetDeadline(s, m.clients[fd].deadline)
			}
			m.advance(m.now + sleep*m.width)
			m.check()
			expired := 0
			for fd := range int32(clients) {
				if c := m.clients[fd]; c == nil || c.deadline == NoDeadline {
					expired++
				}
			}
			if want := int(min(sleep, clients)); expired != want {
				t.Errorf("start %d, slept %d ticks: %d expired, want %d", start, sleep, expired, want)
			}
		}
	}
}

func FuzzWheel(f *testing.F) {
	f.Add(uint8(1), false, []byte("add, wait, take, release, and all of that again"))
	f.Add(uint8(128), true, []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 255, 254, 253, 3, 3, 3, 3, 3, 3, 3, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, milliseconds uint8, old bool, program []byte) {
		tick := min(max(time.Duration(milliseconds)*time.Millisecond, finestTick), coarsestTick)
		start := int64(0)
		if old {
			start = (1<<32 - 100) * int64(tick)
		}
		if len(program) > 300 {
			program = program[:300]
		}
		choices := byteChoices(program)
		newWheelModel(t, tick, start).run(&choices)
	})
}

// TestEarlyEnoughForRelease: an owner sets its deadline in the slot and tells
// nobody, so the wheel must have planned a look before any deadline that an
// owner may set, whenever it took the client and gives it back.
func TestEarlyEnoughForRelease(t *testing.T) {
	for _, tick := range []time.Duration{finestTick, coarsestTick} {
		for _, timeout := range []time.Duration{time.Millisecond, time.Second, 20 * time.Second, 5 * time.Minute} {
			t.Run(fmt.Sprintf("%v/%v", tick, timeout), func(t *testing.T) {
				random := rand.New(rand.NewPCG(8, 9))
				for range 20 {
					releaseOnce(t, tick, timeout, random)
				}
			})
		}
	}
}

func releaseOnce(t *testing.T, tick, timeout time.Duration, random *rand.Rand) {
	r, hooks := newParts[int](t, Options{Tick: tick, ReleaseTimeout: timeout})
	now, expired := int64(0), int64(-1)
	hooks.OnExpired = func(s *Slot[int]) { expired = now; r.Remove(s) }
	// Batches are at the ticks that the wheel asks for, and sometimes between.
	until := func(end int64) {
		for now < end && expired < 0 {
			patience := int64(r.wheel.next(now))
			if patience < 0 {
				t.Fatal("nothing is linked")
			}
			if random.IntN(3) == 0 {
				patience = random.Int64N(patience + 1)
			}
			next := now + patience
			if next > end {
				break
			}
			now, r.now = next, next
			r.wheel.advance(now, r.due)
		}
	}
	s := addClient(t, r, 3)
	r.SetDeadline(s, random.Int64N(int64(2*timeout))+int64(timeout))
	until(random.Int64N(int64(timeout)))
	r.Take(s)
	release := now + random.Int64N(int64(3*timeout))
	until(release)
	if expired >= 0 {
		t.Fatal("expired while owned")
	}
	deadline := release + int64(timeout)
	s.SetDeadline(deadline)
	s.Release()
	until(math.MaxInt64)
	if late := expired - deadline; late < 0 || late >= int64(tick) {
		t.Fatalf("released at %v with %v to live: expired %v after the deadline, a tick is %v",
			time.Duration(release), timeout, time.Duration(late), tick)
	}
}

// A client without a deadline is no reason to wake up at every tick.
func TestNoDeadlineCostsNothing(t *testing.T) {
	m := newWheelModel(t, coarsestTick, 0)
	s := addClient(t, m.r, 3)
	m.clients[3] = &modelled{deadline: NoDeadline}
	m.r.Take(s)
	s.SetDeadline(NoDeadline)
	s.Release()
	m.sleep(int64(time.Hour))
	turns := int(int64(time.Hour) / (wheelBuckets * m.width))
	if m.visits > turns+2 {
		t.Errorf("visited %d times in an hour, which is %d turns of the wheel", m.visits, turns)
	}
}

// A keep-alive client with a request every millisecond: each sets a later
// deadline, and the wheel looks at it once per ReleaseTimeout.
func TestVisitsPerClient(t *testing.T) {
	m := newWheelModel(t, coarsestTick, 0)
	s := addClient(t, m.r, 3)
	client := &modelled{deadline: NoDeadline}
	m.clients[3] = client
	const seconds = 70
	for now := int64(0); now < seconds*int64(time.Second); now += int64(time.Millisecond) {
		m.r.now, m.now = now, now
		m.r.wheel.advance(now, func(s *Slot[int]) { m.visits++; m.r.due(s) })
		m.r.Take(s)
		s.SetDeadline(now + int64(20*time.Second))
		if _, released := s.Release(); !released {
			t.Fatal("not released")
		}
		client.deadline, client.since = s.deadline, now
	}
	if want := int(seconds * time.Second / modelReleaseTimeout); m.visits > want+1 {
		t.Errorf("%d visits in %d s, want at most one per ReleaseTimeout, %d", m.visits, seconds, want)
	}
	m.sleep(client.deadline + m.width)
	if client.deadline != NoDeadline { // what expired leaves behind
		t.Error("never expired after the last request")
	}
}
