package reactor

import (
	"math/rand/v2"
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
			if owned, _ := s.record(c.recorded); !owned {
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
			if owned, woken := s.record(Readable); released && (owned || woken) {
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
		if owned, _ := s.record(Readable); owned {
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

// TestWaitLosesNoWakeUp: in the bubble a wake-up that is lost is a deadlock,
// which synctest reports.
func TestWaitLosesNoWakeUp(t *testing.T) {
	for _, event := range []Events{Readable, Writable} {
		synctest.Test(t, func(t *testing.T) {
			const (
				clients = 8
				edges   = 20_000
			)
			r, _ := newParts[stressed](t, Options{})
			var done sync.WaitGroup
			var slots [clients]*Slot[stressed]
			for fd := range slots {
				s := addClient(t, r, fd)
				slots[fd] = s
				r.Take(s)
				done.Go(func() {
					c := &s.Value
					for c.read < edges {
						if event == Readable {
							s.ClearReadable()
						} else {
							s.ClearWritable()
						}
						if c.readAll(); c.read >= edges {
							break
						}
						if s.Wait(event, 0, nil)&event == 0 {
							t.Error("Wait without a limit returned without the event")
							return
						}
					}
				})
			}
			for range edges {
				for _, s := range slots {
					s.Value.bytes.Add(1)
					if owned, _ := s.record(event); !owned {
						t.Fatal("a waiting client is not owned")
					}
				}
			}
			done.Wait()
		})
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
				if s.word.Load()&wordWaiting != 0 {
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
		s.parker <- struct{}{}
		start := time.Now()
		if got := s.Wait(Readable, time.Minute, nil); got != 0 || time.Since(start) != time.Minute {
			t.Errorf("Wait = %04b after %v, want 0 after 1 min", got, time.Since(start))
		}

		s.parker <- struct{}{} // and with a stale one there, a fresh event is still seen
		time.AfterFunc(time.Second, func() { s.record(Readable) })
		start = time.Now()
		if got := s.Wait(Readable, time.Minute, nil); got != Readable || time.Since(start) != time.Second {
			t.Errorf("Wait = %04b after %v, want Readable after 1 s", got, time.Since(start))
		}
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
