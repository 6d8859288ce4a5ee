package reactor_test

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/catamount-server/catamount/reactor"
)

// TestExpiryToOneTick: never before the deadline, and less than a tick after
// it, though nothing else wakes the reactor.
func TestExpiryToOneTick(t *testing.T) {
	for _, tick := range []time.Duration{time.Millisecond, 50 * time.Millisecond, 128 * time.Millisecond} {
		for _, timeout := range []time.Duration{1, time.Millisecond, time.Second, 30*time.Second + 1, 75 * time.Second, 20 * time.Minute} {
			t.Run(fmt.Sprintf("%v/%v", tick, timeout), func(t *testing.T) {
				var r *rig
				var expired, count atomic.Int64
				h := &hooks{OnExpired: func(s *slot) {
					expired.Store(r.Now())
					count.Add(1)
					r.Remove(s)
				}}
				inBubble(t, h, reactor.Options{Tick: tick}, func(rig *rig) {
					r = rig
					r.pass(time.Duration(rand.Int64N(int64(time.Minute))))
					s := r.add(5)
					deadline := r.Now() + int64(timeout)
					r.do(func() { r.SetDeadline(s, deadline) })
					r.pass(timeout - 1)
					if count.Load() != 0 {
						t.Errorf("expired %v before its deadline", time.Duration(deadline-expired.Load()))
					}
					r.pass(tick)
					if late := expired.Load() - deadline; count.Load() != 1 || late >= int64(tick) {
						t.Errorf("expired %d times, %v after its deadline", count.Load(), time.Duration(late))
					}
					r.pass(time.Hour)
					if count.Load() != 1 || r.Size() != 0 {
						t.Errorf("expired %d times, %d clients left", count.Load(), r.Size())
					}
				})
			})
		}
	}
}

func TestDefaultsOfOptions(t *testing.T) {
	var expired time.Duration
	var r *rig
	h := &hooks{OnExpired: func(s *slot) { expired = time.Duration(r.Now()); r.Remove(s) }}
	inBubble(t, h, reactor.Options{}, func(rig *rig) {
		r = rig
		s := r.add(5)
		r.take(s)
		s.SetDeadline(int64(time.Second)) // ReleaseTimeout is 1 s
		s.Release()
		r.pass(2 * time.Second)
		// 1 s is 7.8 ticks of 128 ms.
		if expired != 8*128*time.Millisecond {
			t.Errorf("expired at %v, want 1.024s", expired)
		}
	})
}

// A deadline that moves later with each request costs the wheel nothing, and
// counts from the last request.
func TestDeadlineMoves(t *testing.T) {
	var r *rig
	var expired time.Duration
	h := &hooks{OnExpired: func(s *slot) { expired = time.Duration(r.Now()); r.Remove(s) }}
	inBubble(t, h, reactor.Options{Tick: 10 * time.Millisecond}, func(rig *rig) {
		r = rig
		s := r.add(5)
		r.do(func() { r.SetDeadline(s, int64(5*time.Second)) })
		for range 10 { // later and later
			r.pass(4 * time.Second)
			r.do(func() { r.SetDeadline(s, r.Now()+int64(5*time.Second)) })
		}
		r.do(func() { r.SetDeadline(s, r.Now()+int64(time.Hour)) })
		r.pass(time.Minute)
		if expired != 0 {
			t.Fatalf("expired at %v", expired)
		}
		r.do(func() { r.SetDeadline(s, reactor.NoDeadline) })
		r.pass(2 * time.Hour)
		if expired != 0 {
			t.Fatalf("expired at %v without a deadline", expired)
		}
		var deadline time.Duration // and earlier
		r.do(func() {
			r.SetDeadline(s, r.Now()+int64(time.Hour))
			deadline = time.Duration(r.Now()) + time.Second
			r.SetDeadline(s, int64(deadline))
		})
		r.pass(2 * time.Second)
		if late := expired - deadline; late < 0 || late >= 10*time.Millisecond {
			t.Errorf("expired %v after its deadline", late)
		}
	})
}

// A handler that neither removes the client nor moves the deadline is asked
// again, but not at every tick.
func TestExpiredAgain(t *testing.T) {
	count := 0
	h := &hooks{OnExpired: func(*slot) { count++ }}
	inBubble(t, h, reactor.Options{ReleaseTimeout: 10 * time.Second}, func(r *rig) {
		s := r.add(5)
		r.do(func() { r.SetDeadline(s, int64(time.Second)) })
		r.pass(95 * time.Second)
		if count != 10 {
			t.Errorf("Expired was called %d times in 95 s, want 10", count)
		}
	})
}

// While a pool goroutine owns the client its deadline is not the reactor's
// business.
func TestOwnedClientsDoNotExpire(t *testing.T) {
	var told said
	inBubble(t, told.listen(), reactor.Options{Tick: time.Millisecond}, func(r *rig) {
		s := r.add(5)
		r.do(func() {
			r.SetDeadline(s, int64(time.Second))
			r.Take(s)
		})
		r.pass(time.Minute)
		told.expect(t)
		s.SetDeadline(r.Now() + int64(3*time.Second))
		s.Release()
		r.pass(3*time.Second - 1)
		told.expect(t)
		r.pass(time.Millisecond)
		told.expect(t, "expired 5")
	})
}

// Bytes that came before the deadline are looked at before it is: what the
// handler makes of them may move it.
func TestEventsBeforeTimeouts(t *testing.T) {
	var told said
	h := told.listen()
	inBubble(t, h, reactor.Options{Tick: time.Millisecond}, func(r *rig) {
		h.OnReady = func(s *slot, _ reactor.Events) {
			told.add("ready %d", s.FD())
			r.SetDeadline(s, r.BatchTime()+int64(time.Second))
		}
		s := r.add(5)
		r.do(func() { r.SetDeadline(s, int64(time.Second)) })
		r.do(func() {
			<-time.After(5 * time.Second) // a handler that holds everything up
			r.poller.Event(5, reactor.Readable)
		})
		synctest.Wait()
		told.expect(t, "ready 5")
		r.pass(time.Second + time.Millisecond)
		told.expect(t, "expired 5")
	})
}

// TestManyClients: an hour of a hundred thousand clients, of which each one
// moves its deadline now and then, costs each client a visit per timeout and
// the reactor a batch per tick.
func TestManyClients(t *testing.T) {
	const (
		clients = 100_000
		timeout = time.Minute
		tick    = 128 * time.Millisecond
	)
	var r *rig
	deadlines := make([]int64, clients)
	expired, wrong := 0, 0
	h := &hooks{OnExpired: func(s *slot) {
		if late := r.Now() - deadlines[s.FD()]; late < 0 || late >= int64(tick) {
			wrong++
		}
		expired++
		r.Remove(s)
	}}
	inBubble(t, h, reactor.Options{Tick: tick, ReleaseTimeout: timeout}, func(rig *rig) {
		r = rig
		slots := make([]*slot, clients)
		r.do(func() {
			for fd := range slots {
				slots[fd], _ = r.Add(fd)
				deadlines[fd] = r.Now() + rand.Int64N(int64(timeout-2*tick))
				r.SetDeadline(slots[fd], deadlines[fd])
			}
		})
		survivors := 0
		for range 60 { // each minute a part of them shows a sign of life
			r.do(func() {
				survivors = 0
				r.Each(func(s *slot, _ bool) {
					if rand.IntN(10) == 0 {
						return
					}
					survivors++
					deadlines[s.FD()] = r.Now() + int64(timeout)
					r.SetDeadline(s, deadlines[s.FD()])
				})
			})
			r.pass(timeout - tick)
			if r.Size() != survivors {
				t.Fatalf("%d clients left, want %d", r.Size(), survivors)
			}
		}
		r.pass(timeout + tick)
		if expired != clients || wrong != 0 || r.Size() != 0 {
			t.Errorf("%d of %d expired, %d of them early or late", expired, clients, wrong)
		}
		if batches := r.poller.Waits(); batches > int(2*time.Hour/tick) {
			t.Errorf("the reactor woke up %d times in an hour", batches)
		}
	})
}
