package reactor

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The load of the benchmarks of deadlines: many clients, of which a random one
// makes a request every 20 µs of the reactor's clock.
const (
	benchClients = 100_000
	benchPace    = int64(20 * time.Microsecond)
	benchIdle    = int64(75 * time.Second)
	benchBatch   = 32 // requests between two looks of the reactor
)

// crowd returns a reactor with many clients and an order in which they ask.
func crowd(b *testing.B) (r *Reactor[[12]uint64], slots []*Slot[[12]uint64], order []int32) {
	r, hooks := newParts[[12]uint64](b, Options{ReleaseTimeout: time.Duration(benchIdle)})
	hooks.OnExpired = func(s *Slot[[12]uint64]) { r.SetDeadline(s, r.now+benchIdle) }
	for fd := range benchClients {
		s := addClient(b, r, fd)
		r.SetDeadline(s, rand.Int64N(benchIdle))
		slots = append(slots, s)
	}
	order = make([]int32, 1<<17)
	for i := range order {
		order[i] = rand.Int32N(benchClients)
	}
	return r, slots, order
}

// eager is the alternative to the wheel: for each kind of deadline a list in
// the order in which they end, linked through the slots. Each request moves its
// client to the tail, and only the reactor may do that.
type eager struct {
	table      *table[[12]uint64]
	head, tail int32
}

// newEager puts a crowd into a list in place of the wheel.
func newEager(r *Reactor[[12]uint64], slots []*Slot[[12]uint64]) *eager {
	e := &eager{table: &r.table, head: noNeighbour, tail: noNeighbour}
	for _, fd := range rand.Perm(len(slots)) {
		r.wheel.unlink(slots[fd])
		e.push(slots[fd], benchIdle)
	}
	return e
}

func (e *eager) push(s *Slot[[12]uint64], deadline int64) {
	s.deadline = deadline
	s.prev, s.next = e.tail, noNeighbour
	if e.tail != noNeighbour {
		e.table.get(e.tail).next = s.fd
	} else {
		e.head = s.fd
	}
	e.tail = s.fd
}

func (e *eager) remove(s *Slot[[12]uint64]) {
	if s.prev != noNeighbour {
		e.table.get(s.prev).next = s.next
	} else {
		e.head = s.next
	}
	if s.next != noNeighbour {
		e.table.get(s.next).prev = s.prev
	} else {
		e.tail = s.prev
	}
}

func (e *eager) expire(now int64) {
	for e.head != noNeighbour && e.table.get(e.head).deadline <= now {
		s := e.table.get(e.head)
		e.remove(s)
		e.push(s, now+benchIdle)
	}
}

// BenchmarkDeadline is what a request costs that moves its client's deadline.
//
// Each begins with the record of an event, as a request does, which brings the
// client into the cache. "step" is the bare step behind it, a store or a move
// to the tail; "none" is without any, for comparison. "request" has all
// that belongs to it: taking the client and giving it back (by Release, or by
// message where the list is the reactor's), and its share of the looks for what
// is due. A message that finds the reactor asleep costs a wake-up besides; here
// none does.
func BenchmarkDeadline(b *testing.B) {
	step := func(name string, f func(e *eager, s *Slot[[12]uint64], deadline int64), list bool) {
		b.Run(name+"/step", func(b *testing.B) {
			r, slots, order := crowd(b)
			var e *eager
			if list {
				e = newEager(r, slots)
			}
			now := int64(0)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				now += benchPace
				s := slots[order[i%len(order)]]
				s.record(Readable)
				f(e, s, now+benchIdle)
			}
		})
	}
	step("none", func(*eager, *Slot[[12]uint64], int64) {}, false)
	step("lazy", func(_ *eager, s *Slot[[12]uint64], deadline int64) { s.SetDeadline(deadline) }, false)
	step("eager", func(e *eager, s *Slot[[12]uint64], deadline int64) { e.remove(s); e.push(s, deadline) }, true)

	b.Run("none/request", func(b *testing.B) {
		_, slots, order := crowd(b)
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			s := slots[order[i%len(order)]]
			s.record(Readable)
			s.word.Store(wordOwned)
			s.Release()
		}
	})
	b.Run("lazy/request", func(b *testing.B) {
		r, slots, order := crowd(b)
		visits := 0
		look := func(s *Slot[[12]uint64]) { visits++; r.due(s) }
		now := int64(0)
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			now += benchPace
			s := slots[order[i%len(order)]]
			s.record(Readable)
			r.Take(s)
			s.SetDeadline(now + benchIdle)
			s.Release()
			if i%benchBatch == 0 {
				r.now = now
				r.wheel.advance(now, look)
			}
		}
		b.ReportMetric(float64(visits)/float64(b.N), "visits/op")
	})
	b.Run("eager/request", func(b *testing.B) {
		r, slots, order := crowd(b)
		e, now := newEager(r, slots), int64(0)
		r.handler.(*Hooks[[12]uint64]).OnReturned = func(s *Slot[[12]uint64]) { e.push(s, now+benchIdle) }
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			now += benchPace
			s := slots[order[i%len(order)]]
			s.record(Readable)
			if !s.Owned() { // twice in a batch: it is in the mail already
				e.remove(s)
				s.word.Store(wordOwned)
				r.Post(s)
			}
			if i%benchBatch == 0 {
				r.collect()
				e.expire(now)
			}
		}
	})
}

// BenchmarkWheelAdvance is the reactor's look for what is due, once per batch:
// with nothing due, and per client visited when a whole crowd is.
func BenchmarkWheelAdvance(b *testing.B) {
	b.Run("nothing due", func(b *testing.B) {
		r, _, _ := crowd(b)
		b.ReportAllocs()
		for i := int64(0); b.Loop(); i++ {
			r.now = i % int64(coarsestTick)
			r.wheel.advance(r.now, r.due)
		}
	})
	// Nobody expires: each visit finds a later deadline and puts the client back.
	b.Run("visit", func(b *testing.B) {
		r, slots, _ := crowd(b)
		for _, s := range slots {
			s.deadline = NoDeadline - 1
		}
		visits := 0
		look := func(s *Slot[[12]uint64]) { visits++; r.due(s) }
		b.ReportAllocs()
		for b.Loop() {
			r.now += r.wheel.width
			r.wheel.advance(r.now, look)
		}
		b.ReportMetric(float64(b.Elapsed())/float64(max(visits, 1)), "ns/visit")
		b.ReportMetric(float64(visits)/float64(b.N), "visits/op")
	})
	b.Run("next", func(b *testing.B) {
		r, _, _ := crowd(b)
		b.ReportAllocs()
		for b.Loop() {
			r.wheel.next(r.now)
		}
	})
}

// BenchmarkTakeRelease is the way of a client to a pool goroutine and back,
// without the pool: what ownership costs a request.
func BenchmarkTakeRelease(b *testing.B) {
	r, _ := newParts[int](b, Options{})
	s := addClient(b, r, 3)
	b.ReportAllocs()
	for b.Loop() {
		s.record(Readable)
		r.Take(s)
		s.ClearReadable()
		if _, released := s.Release(); !released {
			b.Fatal("not released")
		}
	}
}

// BenchmarkPost is the round trip of a client between the reactor and a
// goroutine, by message and channel, on a real epoll set.
func BenchmarkPost(b *testing.B) {
	for _, clients := range []int{1, 32} {
		b.Run(fmt.Sprintf("%d clients", clients), func(b *testing.B) {
			hooks := new(Hooks[int])
			r, err := New[int](hooks, Options{})
			if err != nil {
				b.Fatal(err)
			}
			tasks, done := make(chan *Slot[int], clients), make(chan struct{})
			left := 0
			hooks.OnReturned = func(s *Slot[int]) {
				if left--; left == 0 {
					close(done)
				}
				if left < clients {
					return
				}
				r.Take(s)
				tasks <- s
			}
			var ended sync.WaitGroup
			ended.Go(func() {
				if err := r.Run(); err != nil {
					b.Error(err)
				}
			})
			ended.Go(func() {
				for s := range tasks {
					r.Post(s)
				}
			})
			b.ReportAllocs()
			b.ResetTimer()
			left = max(b.N, clients)
			err = r.Do(func() {
				for fd := range clients {
					s := r.table.claim(int32(fd)) // the kernel is not to know
					s.fd, s.generation, s.bucketTick = int32(fd), 1, notLinked
					r.Take(s)
					tasks <- s
				}
			})
			if err != nil {
				b.Fatal(err)
			}
			<-done
			b.StopTimer()
			close(tasks)
			r.Stop()
			ended.Wait()
		})
	}
}

// BenchmarkEpoll is one look at a real epoll set that finds n descriptors
// ready; the figure per event is what the reactor pays before the handler. The
// sockets are registered as listeners are, so that they are ready each time.
func BenchmarkEpoll(b *testing.B) {
	for _, n := range []int{0, 1, 16, batchSize} {
		b.Run(fmt.Sprintf("%d ready", n), func(b *testing.B) {
			p, err := NewEpoll()
			if err != nil {
				b.Fatal(err)
			}
			defer p.Close()
			for range n {
				fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					b.Fatal(err)
				}
				defer unix.Close(fds[0])
				defer unix.Close(fds[1])
				if _, err := unix.Write(fds[1], []byte("a")); err != nil {
					b.Fatal(err)
				}
				if err := p.AddListener(fds[0], 1); err != nil {
					b.Fatal(err)
				}
			}
			events := make([]Event, batchSize)
			b.ReportAllocs()
			for b.Loop() {
				if got, err := p.Wait(events, 0); got != n || err != nil {
					b.Fatalf("Wait = %d, %v", got, err)
				}
			}
			if n > 0 {
				b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(n), "ns/event")
			}
		})
	}
}

// BenchmarkDispatch is the reactor's part of an event, from the batch to the
// handler, among many clients.
func BenchmarkDispatch(b *testing.B) {
	r, slots, order := crowd(b)
	event := Event{Events: Readable}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		fd := order[i%len(order)]
		event.FD, event.Generation = fd, slots[fd].generation
		r.dispatch(&event)
	}
}

// BenchmarkWake is a wake-up through the eventfd, and the look that finds it.
func BenchmarkWake(b *testing.B) {
	p, err := NewEpoll()
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	events := make([]Event, batchSize)
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Wake(); err != nil {
			b.Fatal(err)
		}
		p.Wait(events, 0)
	}
}
