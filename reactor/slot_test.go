package reactor

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// newParts returns a reactor whose parts a test calls by hand, in the role of
// the reactor's goroutine.
func newParts[T any](t testing.TB, options Options) (*Reactor[T], *Hooks[T]) {
	t.Helper()
	hooks := new(Hooks[T])
	options.Poller = noKernel{}
	r, err := New[T](hooks, options)
	if err != nil {
		t.Fatal(err)
	}
	return r, hooks
}

func addClient[T any](t testing.TB, r *Reactor[T], fd int) *Slot[T] {
	t.Helper()
	s, err := r.Add(fd)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRelease(t *testing.T) {
	for _, c := range []struct {
		name     string
		recorded Events
		released bool
	}{
		{"nothing", 0, true},
		{"writable means nothing", Writable, true},
		{"readable", Readable, false},
		{"half-closed", PeerClosed, false},
		{"gone", HungUp, false},
		{"all", Readable | Writable | PeerClosed | HungUp, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, _ := newParts[int](t, Options{})
			s := addClient(t, r, 3)
			r.Take(s)
			if owned, _, _ := s.record(c.recorded); !owned {
				t.Fatal("a client that was taken is not owned")
			}
			seen, released := s.Release()
			if released != c.released {
				t.Fatalf("released = %t, want %t", released, c.released)
			}
			if s.Owned() == released {
				t.Errorf("Owned = %t after Release = %t", s.Owned(), released)
			}
			if !released && seen != c.recorded {
				t.Errorf("Release reports %04b, want %04b", seen, c.recorded)
			}
			if owned, woken, _ := s.record(Readable); released && (owned || woken) {
				t.Error("an event after Release is taken for the owner's")
			}
		})
	}
}

func TestTakeForgetsWhatWasRead(t *testing.T) {
	r, _ := newParts[int](t, Options{})
	s := addClient(t, r, 3)
	s.record(Readable | Writable)
	r.Take(s)
	if s.Seen() != 0 || !s.Owned() {
		t.Errorf("after Take: seen %04b, owned %t; want nothing, true", s.Seen(), s.Owned())
	}
	if _, released := s.Release(); !released {
		t.Error("Release refused for what the reactor had read already")
	}

	r.TakeReadable(s)
	if s.Seen() != Readable {
		t.Errorf("after TakeReadable: seen %04b, want Readable", s.Seen())
	}
	if _, released := s.Release(); released {
		t.Error("Release took a client with bytes that were left unread")
	}
	s.ClearReadable()
	if _, released := s.Release(); !released {
		t.Error("Release refused after ClearReadable")
	}

	s.record(PeerClosed)
	r.Take(s)
	s.ClearReadable()
	s.ClearWritable()
	if s.Seen() != PeerClosed {
		t.Errorf("that the peer has gone was forgotten: seen %04b", s.Seen())
	}
}

// A stressed client: bytes stands for what lies in its socket.
type stressed struct {
	bytes  atomic.Int64
	owners atomic.Int32
	read   int64 // by whoever owns the client
}

// enter and leave detect two owners at once; read is unguarded so that the
// race detector sees them as well.
func (c *stressed) enter(t *testing.T) {
	if c.owners.Add(1) != 1 {
		t.Error("a client has two owners")
	}
}

func (c *stressed) leave() { c.owners.Add(-1) }

func (c *stressed) readAll() {
	c.read += c.bytes.Swap(0)
}

// TestReleaseLosesNoEdge plays the kernel and the reactor on one goroutine:
// bytes arrive, their edge is recorded, and who owns the client reads them. An
// edge that is lost leaves bytes unread for ever.
func TestReleaseLosesNoEdge(t *testing.T) {
	const (
		clients = 16
		owners  = 8
		edges   = 200_000
	)
	r, _ := newParts[stressed](t, Options{})
	slots := make([]*Slot[stressed], clients)
	for fd := range slots {
		slots[fd] = addClient(t, r, fd)
	}
	tasks := make(chan *Slot[stressed], clients)
	var pool sync.WaitGroup
	for range owners {
		pool.Go(func() {
			for s := range tasks {
				c := &s.Value
				c.enter(t)
				for {
					s.ClearReadable()
					c.readAll()
					c.leave()
					if _, released := s.Release(); released {
						break
					}
					c.enter(t)
				}
			}
		})
	}
	// The owner is the reactor unless record says otherwise: it reads here
	// itself, or hands over with the bytes read or unread.
	for range edges {
		s := slots[rand.IntN(clients)]
		c := &s.Value
		c.bytes.Add(1)
		if owned, _, _ := s.record(Readable); owned {
			continue
		}
		c.enter(t)
		switch rand.IntN(4) {
		case 0: // a part of a request
			c.readAll()
			c.leave()
		case 1: // a whole one, and more left in the socket
			c.leave()
			r.TakeReadable(s)
			tasks <- s
		default:
			c.readAll()
			c.leave()
			r.Take(s)
			tasks <- s
		}
	}
	close(tasks)
	pool.Wait()
	total := int64(0)
	for fd, s := range slots {
		if left := s.Value.bytes.Load(); left != 0 {
			t.Errorf("client %d: an edge was lost, %d bytes unread", fd, left)
		}
		if s.Owned() {
			t.Errorf("client %d was not released", fd)
		}
		total += s.Value.read
	}
	if total != edges {
		t.Errorf("%d bytes read, want %d", total, edges)
	}
}

// aim delays the owner of a client such that the reactor meets a moment of it:
// it steers to where half of the shots come early.
type aim struct {
	delay, spun atomic.Int64
	early, late int
}

func (a *aim) wait() {
	for range a.delay.Load() + rand.Int64N(8) {
		a.spun.Add(1)
	}
}

func (a *aim) was(early bool) {
	if early {
		a.early++
		a.delay.Store(max(a.delay.Load()-1, 0))
	} else {
		a.late++
		a.delay.Store(min(a.delay.Load()+1, 500))
	}
}

// pause is for a loop that waits for the other goroutine: it leaves it the
// processor only if it must.
func pause(turn int) {
	if turn%200 == 199 {
		runtime.Gosched()
	}
}

// isEnough ends rounds early where two goroutines that spin have one processor
// between them, but GOMAXPROCS says more: each change of turns costs a time slice
// of the kernel's there, and all rounds together minutes.
func isEnough(round int64, began time.Time) bool {
	return round%64 == 63 && time.Since(began) > 5*time.Second
}

// TestReleaseAgainstEdge is the same for one client, with one edge at a time
// aimed at the moment of the Release: in a crowd the next edge of a client
// would make good for the one that was lost.
func TestReleaseAgainstEdge(t *testing.T) {
	const rounds = 50_000
	r, _ := newParts[stressed](t, Options{})
	s := addClient(t, r, 3)
	c := &s.Value
	var shot aim
	var task, end atomic.Bool
	var owner sync.WaitGroup
	owner.Go(func() {
		for turn := 0; !end.Load(); turn++ {
			if !task.CompareAndSwap(true, false) {
				pause(turn)
				continue
			}
			for {
				s.ClearReadable()
				c.readAll()
				shot.wait()
				if _, released := s.Release(); released {
					break
				}
			}
		}
	})
	edge := func() {
		c.bytes.Add(1)
		if owned, _, _ := s.record(Readable); !owned {
			r.Take(s)
			task.Store(true)
		}
	}
	began := time.Now()
	for round := range int64(rounds) {
		edge()
		for turn := 0; c.bytes.Load() != 0; turn++ {
			pause(turn)
		}
		shot.was(s.Owned()) // it is about to release
		edge()
		for turn := 0; s.Owned() || task.Load(); turn++ {
			pause(turn)
		}
		if c.bytes.Load() != 0 {
			t.Errorf("round %d: an edge was lost as the client was released", round)
			break
		}
		if isEnough(round, began) {
			break
		}
	}
	end.Store(true)
	owner.Wait()
	t.Logf("%d edges came before the Release, %d after it", shot.early, shot.late)
}

// TestWaitLosesNoWakeUp aims edges at the moment in which the owner parks, one
// at a time for the same reason.
func TestWaitLosesNoWakeUp(t *testing.T) {
	for _, event := range []Events{Readable, Writable} {
		const edges = 50_000
		r, _ := newParts[stressed](t, Options{})
		s := addClient(t, r, 3)
		r.Take(s)
		var shot aim
		var parking, last atomic.Int64 // the edge for which the owner is about to wait, and how many there will be
		last.Store(edges)
		var owner sync.WaitGroup
		owner.Go(func() {
			defer parking.Store(edges)
			c := &s.Value
			for {
				s.ClearReadable()
				s.ClearWritable()
				if c.readAll(); c.read == last.Load() {
					return
				}
				parking.Store(c.read)
				shot.wait()
				if s.Wait(event, 10*time.Second, nil) == 0 {
					t.Errorf("the wake-up by edge %d was lost", c.read)
					return
				}
			}
		})
		began := time.Now()
		for edge := int64(0); edge < last.Load(); edge++ {
			for turn := 0; parking.Load() < edge; turn++ {
				pause(turn)
			}
			shot.was(s.word.Load()&(wordReading|wordWriting) == 0)
			if isEnough(edge, began) {
				last.Store(edge + 1)
			}
			s.Value.bytes.Add(1)
			if owned, _, _ := s.record(event); !owned {
				t.Error("a waiting client is not owned")
			}
		}
		owner.Wait()
		t.Logf("%d edges came before the owner was parked, %d after it", shot.early, shot.late)
	}
}

func TestWaitEnds(t *testing.T) {
	const limit = 3 * time.Second
	for _, c := range []struct {
		name           string
		before, during Events
		cancel         bool
		want           Events
		after          time.Duration
	}{
		{name: "at once", before: Readable, want: Readable},
		{name: "at once when gone", before: HungUp, want: HungUp},
		{name: "by an event", during: Readable, want: Readable, after: time.Second},
		{name: "when the client goes", during: HungUp | PeerClosed, want: HungUp, after: time.Second},
		{name: "not by another event", during: Writable, want: 0, after: limit},
		{name: "by time", want: 0, after: limit},
		{name: "by cancel", cancel: true, want: 0, after: time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, _ := newParts[int](t, Options{})
				s := addClient(t, r, 3)
				r.Take(s)
				s.record(c.before)
				cancel := make(chan struct{})
				time.AfterFunc(time.Second, func() {
					if c.cancel {
						close(cancel)
					} else {
						s.record(c.during)
					}
				})
				start := time.Now()
				got := s.Wait(Readable, limit, cancel)
				if got != c.want || time.Since(start) != c.after {
					t.Errorf("Wait = %04b after %v, want %04b after %v", got, time.Since(start), c.want, c.after)
				}
				if s.word.Load()&(wordReading|wordWriting) != 0 {
					t.Error("still marked as waiting")
				}
				synctest.Wait()
			})
		})
	}
}

// A token may be left over: from an event that came as the timer fired, or one
// that the owner did not want. It must not end the next Wait.
func TestStaleToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := newParts[int](t, Options{})
		s := addClient(t, r, 3)
		r.Take(s)
		if s.Wait(Readable, time.Second, nil) != 0 { // makes the parker
			t.Fatal("Wait returned an event")
		}
		s.parkersOf().reader <- struct{}{}
		start := time.Now()
		if got := s.Wait(Readable, time.Minute, nil); got != 0 || time.Since(start) != time.Minute {
			t.Errorf("Wait = %04b after %v, want 0 after 1 min", got, time.Since(start))
		}

		s.parkersOf().reader <- struct{}{} // and with a stale one there, a fresh event is still seen
		time.AfterFunc(time.Second, func() { s.record(Readable) })
		start = time.Now()
		if got := s.Wait(Readable, time.Minute, nil); got != Readable || time.Since(start) != time.Second {
			t.Errorf("Wait = %04b after %v, want Readable after 1 s", got, time.Since(start))
		}
	})
}

// A handler that reads its body and writes its answer in two goroutines parks
// both; each is woken by its own events, and both when the client goes.
func TestTwoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := newParts[int](t, Options{})
		s := addClient(t, r, 3)
		r.Take(s)
		got := make(chan Events, 2)
		wait := func(want Events) { got <- s.Wait(want, 0, nil) }
		expect := func(want ...Events) {
			t.Helper()
			synctest.Wait()
			for _, w := range want {
				select {
				case e := <-got:
					if e != w {
						t.Errorf("Wait = %04b, want %04b", e, w)
					}
				default:
					t.Fatalf("nobody was woken for %04b", w)
				}
			}
			if len(got) > 0 {
				t.Fatal("somebody else was woken as well")
			}
		}
		go wait(Readable)
		go wait(Writable)
		expect()
		s.record(Writable)
		expect(Writable)
		s.record(Readable)
		expect(Readable)
		s.ClearReadable()
		s.ClearWritable()
		go wait(Readable)
		go wait(Writable)
		synctest.Wait()
		s.record(HungUp)
		expect(HungUp, HungUp)
	})
}

// TestWritable follows the protocol of an owner whose socket is full: clear,
// try, wait. The kernel gives an edge only after a refused write.
func TestWritable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := newParts[int](t, Options{})
		s := addClient(t, r, 3)
		r.Take(s)
		const total = 50_000
		var room atomic.Int64
		refused := make(chan struct{}, 1)
		var done sync.WaitGroup
		done.Go(func() {
			for sent := int64(0); sent < total; {
				s.ClearWritable()
				if n := room.Swap(0); n > 0 {
					sent += n
					continue
				}
				select {
				case refused <- struct{}{}:
				default:
				}
				s.Wait(Writable, 0, nil)
			}
			close(refused)
		})
		given := 0
		for range refused {
			if given < total {
				given++
				room.Add(1)
				s.record(Writable)
			}
		}
		done.Wait()
		if given != total {
			t.Errorf("done after %d of %d edges", given, total)
		}
	})
}
