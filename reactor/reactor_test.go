package reactor_test

import (
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/catamount-server/catamount/reactor"
	"github.com/catamount-server/catamount/reactor/reactortest"
)

// said is what a handler was told, in the test's notation.
type said struct {
	mu    sync.Mutex
	lines []string
}

func (s *said) add(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

// expect compares and forgets.
func (s *said) expect(t *testing.T, want ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.lines, want) {
		t.Errorf("the handler was told %q, want %q", s.lines, want)
	}
	s.lines = nil
}

// listen returns hooks that note everything but the ends of batches.
func (s *said) listen() *hooks {
	return &hooks{
		OnReady:      func(sl *slot, e reactor.Events) { s.add("ready %d %s", sl.FD(), name(e)) },
		OnObserved:   func(sl *slot, e reactor.Events) { s.add("observed %d %s", sl.FD(), name(e)) },
		OnReturned:   func(sl *slot) { s.add("returned %d", sl.FD()) },
		OnExpired:    func(sl *slot) { s.add("expired %d", sl.FD()) },
		OnAcceptable: func(fd int) { s.add("acceptable %d", fd) },
	}
}

func name(e reactor.Events) (text string) {
	for i, letter := range "RWPH" { // Readable, Writable, PeerClosed, HungUp
		if e&(1<<i) != 0 {
			text += string(letter)
		}
	}
	return text
}

func TestEventsOfWaitingClients(t *testing.T) {
	var told said
	inBubble(t, told.listen(), reactor.Options{}, func(r *rig) {
		s := r.add(5)
		r.event(5, reactor.Writable)
		r.event(5, reactor.Readable|reactor.PeerClosed)
		r.event(5, reactor.HungUp)
		told.expect(t, "ready 5 W", "ready 5 RP", "ready 5 H")
		if s.FD() != 5 || name(s.Seen()) != "RWPH" {
			t.Errorf("descriptor %d, seen %s", s.FD(), name(s.Seen()))
		}
	})
}

// An owner who cannot write may ask the handler to go on with it.
func TestWatchWritable(t *testing.T) {
	var told said
	inBubble(t, told.listen(), reactor.Options{}, func(r *rig) {
		s := r.add(5)
		r.take(s)
		s.WatchWritable(true)
		r.event(5, reactor.Readable)
		r.event(5, reactor.Writable)
		told.expect(t, "observed 5 W")
		s.WatchWritable(false)
		r.event(5, reactor.Writable)
		told.expect(t)
		s.WatchWritable(true)
		r.Post(s)
		synctest.Wait()
		r.take(s) // the next owner has asked for nothing
		r.event(5, reactor.Writable)
		told.expect(t, "returned 5")
	})
}

// While a pool goroutine owns a client, the handler hears only that the peer
// has gone; the rest is recorded.
func TestObservedOnlyForOwnedClientsThatGo(t *testing.T) {
	var told said
	inBubble(t, told.listen(), reactor.Options{}, func(r *rig) {
		s := r.add(5)
		r.take(s)
		r.event(5, reactor.Readable|reactor.Writable)
		told.expect(t)
		if name(s.Seen()) != "RW" {
			t.Errorf("recorded %q, want RW", name(s.Seen()))
		}
		s.ClearReadable()
		r.event(5, reactor.PeerClosed|reactor.Readable)
		r.event(5, reactor.HungUp)
		told.expect(t, "observed 5 P", "observed 5 H")
		if _, released := s.Release(); released {
			t.Error("a client that has gone was released")
		}
		r.Post(s)
		synctest.Wait()
		told.expect(t, "returned 5")
		r.event(5, reactor.Readable)
		told.expect(t, "ready 5 R")
	})
}

func TestReleasedClientIsReadyAgain(t *testing.T) {
	var told said
	inBubble(t, told.listen(), reactor.Options{}, func(r *rig) {
		s := r.add(5)
		r.take(s)
		wakes := r.poller.Wakes()
		if _, released := s.Release(); !released {
			t.Fatal("not released")
		}
		synctest.Wait()
		if r.poller.Wakes() != wakes {
			t.Error("Release woke the reactor")
		}
		r.event(5, reactor.Readable)
		told.expect(t, "ready 5 R")
	})
}

func TestStaleEventsAreIgnored(t *testing.T) {
	var told said
	h := told.listen()
	inBubble(t, h, reactor.Options{}, func(r *rig) {
		first := r.add(5)
		old := first.Generation()
		r.do(func() { r.Remove(first) })
		r.poller.Inject(reactor.Event{FD: 5, Generation: old, Events: reactor.Readable})
		synctest.Wait()
		told.expect(t) // the slot is free

		second := r.add(5)
		if second.Generation() == old {
			t.Fatal("the same generation twice")
		}
		r.poller.Inject(
			reactor.Event{FD: 5, Generation: old, Events: reactor.HungUp},
			reactor.Event{FD: 6, Generation: old, Events: reactor.Readable},
			reactor.Event{FD: 9999, Generation: old, Events: reactor.Readable})
		synctest.Wait()
		told.expect(t)
		if second.Seen() != 0 {
			t.Errorf("a stale event was recorded: %s", name(second.Seen()))
		}
		r.event(5, reactor.Readable)
		told.expect(t, "ready 5 R")
	})
}

// A client inherits nothing from the one that had its place.
func TestAddIsFresh(t *testing.T) {
	var told said
	inBubble(t, told.listen(), reactor.Options{Tick: time.Millisecond}, func(r *rig) {
		s := r.add(5)
		r.do(func() {
			r.SetDeadline(s, r.Now()+int64(time.Second))
			s.Value = 42
		})
		r.event(5, reactor.Readable|reactor.HungUp)
		r.do(func() { r.Remove(s) })
		told.expect(t, "ready 5 RH")
		s = r.add(5)
		if s.Seen() != 0 || s.Owned() || s.Value != 0 {
			t.Errorf("seen %s, owned %t, value %d", name(s.Seen()), s.Owned(), s.Value)
		}
		r.take(s)
		r.pass(10 * time.Second)
		if _, released := s.Release(); !released {
			t.Error("not released")
		}
		r.pass(time.Hour)
		told.expect(t) // its deadline is not the old one's
	})
}

// The descriptor of a client that the handler closes is reused at once, by a
// connection accepted later in the same batch; the events behind it in that
// batch are the old client's.
func TestDescriptorReusedWithinBatch(t *testing.T) {
	var told said
	h := told.listen()
	var r *rig
	var victim *slot
	h.OnReady = func(s *slot, e reactor.Events) {
		told.add("ready %d %s", s.FD(), name(e))
		if s.FD() == 7 {
			r.Remove(victim)
			r.poller.Closed(8)
			if _, err := r.Add(8); err != nil {
				t.Error(err)
			}
		}
	}
	inBubble(t, h, reactor.Options{}, func(rig *rig) {
		r = rig
		killer := r.add(7)
		victim = r.add(8)
		r.poller.Inject(
			reactor.Event{FD: 7, Generation: killer.Generation(), Events: reactor.Readable},
			reactor.Event{FD: 8, Generation: victim.Generation(), Events: reactor.Readable | reactor.HungUp})
		synctest.Wait()
		told.expect(t, "ready 7 R")
		r.event(8, reactor.Writable)
		told.expect(t, "ready 8 W")
	})
}

func TestListeners(t *testing.T) {
	var told said
	inBubble(t, told.listen(), reactor.Options{}, func(r *rig) {
		r.do(func() {
			for _, fd := range []int{3, 4} {
				if err := r.Listen(fd); err != nil {
					t.Error(err)
				}
			}
			if err := r.Listen(3); err == nil {
				t.Error("a listener was registered twice")
			}
		})
		r.event(4, reactor.Readable)
		r.event(3, reactor.Readable)
		told.expect(t, "acceptable 4", "acceptable 3")

		generation, _ := r.poller.Generation(3)
		r.do(func() {
			if err := errors.Join(r.Unlisten(3), r.Unlisten(3)); err != nil {
				t.Error(err)
			}
		})
		if _, registered := r.poller.Generation(3); registered {
			t.Error("Unlisten left the listener in the set")
		}
		r.poller.Inject(reactor.Event{FD: 3, Generation: generation, Events: reactor.Readable})
		synctest.Wait()
		told.expect(t)

		// Armed again, it has another generation.
		r.do(func() { r.Listen(3) })
		r.poller.Inject(reactor.Event{FD: 3, Generation: generation, Events: reactor.Readable})
		synctest.Wait()
		told.expect(t)
		r.event(3, reactor.Readable)
		told.expect(t, "acceptable 3")
	})
}

// Forget is for a listener whose descriptor is gone: its number may be a
// client's by now, which must stay in the set.
func TestForget(t *testing.T) {
	var told said
	inBubble(t, told.listen(), reactor.Options{}, func(r *rig) {
		r.do(func() { r.Listen(3) })
		generation, _ := r.poller.Generation(3)
		r.poller.Closed(3)
		r.add(3)
		r.do(func() { r.Forget(3); r.Forget(99) })
		r.poller.Inject(reactor.Event{FD: 3, Generation: generation, Events: reactor.Readable})
		synctest.Wait()
		told.expect(t)
		r.event(3, reactor.Readable)
		told.expect(t, "ready 3 R")
		for _, call := range r.poller.Calls() {
			if call.Operation == reactortest.Remove {
				t.Errorf("Forget removed descriptor %d from the set", call.FD)
			}
		}
	})
}

// After 2³² registrations the numbers start again, without the one that
// belongs to the wake-up: its events are never reported.
func TestGenerationsWrap(t *testing.T) {
	const last = ^uint32(0)
	var told said
	inBubble(t, told.listen(), reactor.Options{}, func(r *rig) {
		r.do(func() {
			r.SetLastGeneration(last)
			r.Listen(3)
			r.SetLastGeneration(last)
			r.Add(5)
		})
		for _, fd := range []int{3, 5} {
			if generation, _ := r.poller.Generation(fd); generation == 0 {
				t.Errorf("descriptor %d has the generation of the wake-up", fd)
			}
		}
		r.event(3, reactor.Readable)
		r.event(5, reactor.Readable)
		told.expect(t, "acceptable 3", "ready 5 R")
	})
}

func TestAddFails(t *testing.T) {
	refusal := errors.New("no memory")
	var told said
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, told.listen(), reactor.Options{})
		r.poller.Fail = func(call reactortest.Call) error {
			if call.FD >= 6 {
				return refusal
			}
			return nil
		}
		r.run()
		r.add(5)
		r.do(func() {
			if _, err := r.Add(6); !errors.Is(err, refusal) {
				t.Errorf("Add = %v", err)
			}
			if err := r.Listen(7); !errors.Is(err, refusal) {
				t.Errorf("Listen = %v", err)
			}
			clients := 0
			r.Each(func(*slot, bool) { clients++ })
			if clients != 1 || r.Size() != 1 {
				t.Errorf("%d clients, size %d; want 1", clients, r.Size())
			}
		})
		r.stop()
	})
}

func TestDetach(t *testing.T) {
	inBubble(t, new(hooks), reactor.Options{}, func(r *rig) {
		s := r.add(5)
		r.take(s)
		if err := r.Detach(s); err != nil {
			t.Error(err)
		}
		if _, registered := r.poller.Generation(5); registered || r.Size() != 1 {
			t.Error("Detach is to take the descriptor out of the set and leave the slot")
		}
	})
}

func TestEach(t *testing.T) {
	inBubble(t, new(hooks), reactor.Options{}, func(r *rig) {
		for fd := 10; fd < 300; fd += 40 {
			if s := r.add(fd); fd%20 == 0 {
				r.take(s)
			}
		}
		r.take(r.add(1000))
		got := map[int]bool{}
		r.do(func() { r.Each(func(s *slot, owned bool) { got[s.FD()] = owned }) })
		want := map[int]bool{10: false, 50: false, 90: false, 130: false, 170: false, 210: false, 250: false, 290: false, 1000: true}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("Each: %v, want %v", got, want)
		}
	})
}

func TestSizeMax(t *testing.T) {
	inBubble(t, new(hooks), reactor.Options{}, func(r *rig) {
		expect := func(want int) {
			t.Helper()
			r.do(func() {
				if got := r.SizeMax(); got != want {
					t.Errorf("SizeMax = %d, want %d", got, want)
				}
			})
		}
		clients := make([]*slot, 100)
		for fd := range clients {
			clients[fd] = r.add(fd)
		}
		expect(100)
		r.pass(25 * time.Second) // nothing happens, and nobody asks
		r.do(func() {
			for _, s := range clients[10:] {
				r.Remove(s)
			}
		})
		r.pass(time.Second)
		expect(100) // it was a second ago
		r.pass(5 * time.Second)
		expect(100)
		r.pass(21 * time.Second)
		expect(10)
		if r.Size() != 10 {
			t.Errorf("Size = %d", r.Size())
		}
	})
}

func TestWaitFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, new(hooks), reactor.Options{})
		r.run()
		synctest.Wait()
		breakdown := errors.New("broken")
		r.poller.Break(breakdown)
		if err := <-r.ended; !errors.Is(err, breakdown) {
			t.Errorf("Run = %v, want %v", err, breakdown)
		}
		if !r.poller.IsClosed() {
			t.Error("the poller is open")
		}
		if err := r.Do(func() {}); err != reactor.ErrStopped {
			t.Errorf("Do = %v, want ErrStopped", err)
		}
	})
}

// With real goroutines everywhere: nothing is left once Run has returned.
func TestNoGoroutinesLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 10 {
		r, err := reactor.New[int](new(hooks), reactor.Options{})
		if err != nil {
			t.Fatal(err)
		}
		r.Stop()
		if err := r.Run(); err != nil {
			t.Error(err)
		}
	}
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("%d goroutines, %d before", after, before)
	}
}
