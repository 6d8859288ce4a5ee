package reactor_test

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/catamount-server/catamount/reactor"
)

func TestReturnedOldestFirst(t *testing.T) {
	var told said
	inBubble(t, told.listen(), reactor.Options{}, func(r *rig) {
		var slots []*slot
		for fd := range 5 {
			slots = append(slots, r.add(fd))
		}
		r.do(func() { // on its goroutine, so that one batch takes them all
			for _, fd := range []int{3, 0, 4, 1} {
				r.Take(slots[fd])
				r.Post(slots[fd])
			}
		})
		synctest.Wait()
		told.expect(t, "returned 3", "returned 0", "returned 4", "returned 1")
		for fd, s := range slots {
			if s.Owned() {
				t.Errorf("client %d is owned after it returned", fd)
			}
		}
		r.take(slots[2]) // and a single one, from another goroutine
		r.Post(slots[2])
		synctest.Wait()
		told.expect(t, "returned 2")
	})
}

// What was recorded meanwhile is the reactor's to look at.
func TestReturnedKeepsWhatWasSeen(t *testing.T) {
	var told said
	h := told.listen()
	h.OnReturned = func(s *slot) { told.add("returned %d %s", s.FD(), name(s.Seen())) }
	inBubble(t, h, reactor.Options{}, func(r *rig) {
		s := r.add(5)
		r.take(s)
		r.event(5, reactor.Readable)
		r.Post(s)
		synctest.Wait()
		told.expect(t, "returned 5 R")
	})
}

// TestPostIsNeverLost: a client that is posted while the reactor falls asleep
// must wake it. A message that is lost is a deadlock, which synctest reports.
func TestPostIsNeverLost(t *testing.T) {
	const (
		clients = 8
		rounds  = 5_000
	)
	pool := make(chan *slot, clients)
	var r *rig
	var returned atomic.Int64
	h := &hooks{OnReturned: func(s *slot) {
		returned.Add(1)
		if s.Value++; s.Value < rounds {
			r.Take(s)
			pool <- s
		}
	}}
	synctest.Test(t, func(t *testing.T) {
		pool = make(chan *slot, clients)
		r = newRig(t, h, reactor.Options{})
		r.run()
		var owners sync.WaitGroup
		for range 4 {
			owners.Go(func() {
				for s := range pool {
					r.Post(s)
				}
			})
		}
		for fd := range clients {
			s := r.add(fd)
			r.take(s)
			r.Post(s)
		}
		synctest.Wait()
		if returned.Load() != clients*rounds {
			t.Errorf("%d returned, want %d", returned.Load(), clients*rounds)
		}
		close(pool)
		owners.Wait()
		r.stop()
	})
}

// TestDoIsNeverLost, and in order for each caller; after Stop every command
// was either run or refused.
func TestDoIsNeverLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, new(hooks), reactor.Options{})
		r.run()
		const callers = 8
		var ran, accepted [callers]int
		var calls sync.WaitGroup
		for caller := range callers {
			calls.Go(func() {
				for {
					number := accepted[caller]
					if r.Do(func() {
						if ran[caller] != number {
							t.Errorf("command %d ran as number %d", number, ran[caller])
						}
						ran[caller]++
					}) != nil {
						return
					}
					if accepted[caller]++; accepted[caller] == 2000 && caller == 0 {
						r.Stop()
					}
				}
			})
		}
		calls.Wait()
		if err := <-r.ended; err != nil {
			t.Errorf("Run = %v", err)
		}
		if ran != accepted {
			t.Errorf("ran %v, accepted %v", ran, accepted)
		}
	})
}

// TestMessageAgainstSleep aims one message at a time at the moment in which the
// reactor falls asleep: the next would make good for one that was lost. In the
// bubble that is a deadlock.
func TestMessageAgainstSleep(t *testing.T) {
	var done atomic.Int64
	h := &hooks{OnReturned: func(*slot) { done.Add(1) }}
	inBubble(t, h, reactor.Options{}, func(r *rig) {
		s := r.add(5)
		for round := range int64(30_000) {
			if round%2 == 0 {
				r.Do(func() { r.Take(s); done.Add(1) })
			} else {
				r.Post(s)
			}
			for turn := 0; done.Load() == round; turn++ {
				if turn == 1000 { // the reactor sleeps, or will
					synctest.Wait()
					if done.Load() == round {
						t.Fatalf("message %d was lost", round)
					}
				}
				runtime.Gosched()
			}
			for range rand.IntN(30) { // it is on its way to sleep
				done.Load()
			}
		}
	})
}

func TestDoBeforeRunAndWithinDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, new(hooks), reactor.Options{})
		var order []int
		r.Do(func() {
			order = append(order, 1)
			r.Do(func() { order = append(order, 3) })
		})
		r.Do(func() { order = append(order, 2) })
		r.run()
		synctest.Wait()
		if !slices.Equal(order, []int{1, 2, 3}) {
			t.Errorf("commands ran in the order %v", order)
		}
		r.stop()
	})
}

func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told said
		h := told.listen()
		ends := 0
		h.OnBatchEnd = func() { ends++ }
		r := newRig(t, h, reactor.Options{})
		r.run()
		s := r.add(5)
		late := 0
		// The batch in which Stop comes is finished.
		r.Do(func() {
			r.poller.Event(5, reactor.Readable)
			r.Stop()
		})
		if err := <-r.ended; err != nil {
			t.Errorf("Run = %v", err)
		}
		told.expect(t, "ready 5 R")
		if r.Do(func() { late++ }) != reactor.ErrStopped || late != 0 {
			t.Error("Do after the end is to be refused")
		}
		r.Stop() // and again does nothing
		r.Nudge()
		if _, registered := r.poller.Generation(5); !registered || s.Generation() == 0 {
			t.Error("Stop removed a client: descriptors stay as they are")
		}
		if ends == 0 {
			t.Error("no batch ended")
		}
	})
}

// Who posts a client and then asks for something may rely on it that the client
// has returned when that is done, at whatever moment of a batch he does both.
func TestDoComesAfterPost(t *testing.T) {
	var r *rig
	var second *slot
	owned := make(chan bool, 1)
	h := &hooks{OnReturned: func(s *slot) {
		if s != second { // the batch's mail has been taken
			r.Post(second)
			_ = r.Do(func() { owned <- second.Owned() })
		}
	}}
	inBubble(t, h, reactor.Options{}, func(started *rig) {
		r = started
		first := r.add(5)
		second = r.add(6)
		r.take(first)
		r.take(second)
		r.Post(first)
		if <-owned {
			t.Error("a command has overtaken a client that was posted before it")
		}
	})
}

// A command that was accepted runs, even when the reactor ends before its next
// batch: somebody waits for it.
func TestAcceptedCommandsRunAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, new(hooks), reactor.Options{})
		ran := false
		r.Do(func() {
			r.Stop() // runs in the next batch,
			r.Do(func() {
				r.Do(func() { ran = true }) // accepted in the reactor's last one
			})
		})
		r.run()
		<-r.ended
		if !ran {
			t.Error("an accepted command was dropped")
		}
	})
}

func TestPatienceAndNudge(t *testing.T) {
	var asked, batches, expired, patience atomic.Int64
	patience.Store(-1)
	var r *rig
	options := reactor.Options{Tick: time.Millisecond, Patience: func() time.Duration {
		asked.Add(1)
		return time.Duration(patience.Load())
	}}
	h := &hooks{
		OnBatchEnd: func() { batches.Add(1) },
		OnExpired:  func(*slot) { expired.CompareAndSwap(0, r.Now()) },
	}
	inBubble(t, h, options, func(rig *rig) {
		r = rig
		s := r.add(5)
		looks := func(d time.Duration) int64 {
			synctest.Wait()
			before := batches.Load()
			r.pass(d)
			return batches.Load() - before
		}
		if n := looks(time.Hour); n != 0 {
			t.Errorf("%d batches in an idle hour", n)
		}
		patience.Store(int64(time.Second))
		if n := looks(time.Minute); n != 0 {
			t.Errorf("%d batches before anybody nudged", n)
		}
		r.Nudge()
		if n := looks(10 * time.Second); n != 10 {
			t.Errorf("%d batches in 10 s with a patience of 1 s", n)
		}
		before := asked.Load()
		patience.Store(int64(time.Hour))
		r.Nudge()
		synctest.Wait()
		if asked.Load() != before+1 {
			t.Errorf("asked %d times after a Nudge", asked.Load()-before)
		}
		// The wheel is heard as well.
		var deadline int64
		r.do(func() {
			deadline = r.Now() + int64(time.Second)
			r.SetDeadline(s, deadline)
		})
		r.pass(2 * time.Second)
		if late := expired.Load() - deadline; late < 0 || late >= int64(time.Millisecond) {
			t.Errorf("with a patience of an hour a client expired %v after its deadline", time.Duration(late))
		}
	})
}

// Of those who nudge together one makes the system call; a reactor that is
// awake needs none.
func TestWakesAreFew(t *testing.T) {
	inBubble(t, new(hooks), reactor.Options{}, func(r *rig) {
		synctest.Wait()
		before := r.poller.Wakes()
		r.do(func() {
			for range 100 {
				r.Nudge()
				r.Do(func() {})
			}
		})
		synctest.Wait()
		if n := r.poller.Wakes() - before; n != 1 {
			t.Errorf("%d wake-ups, want 1", n)
		}
	})
}

func TestKeepGoing(t *testing.T) {
	left := 0
	var r *rig
	h := &hooks{}
	h.OnBatchEnd = func() {
		if left > 0 {
			left--
			r.KeepGoing()
		}
	}
	inBubble(t, h, reactor.Options{}, func(rig *rig) {
		r = rig
		synctest.Wait()
		before := r.poller.Waits()
		r.do(func() { left = 10 })
		synctest.Wait()
		if left != 0 {
			t.Errorf("the reactor fell asleep with %d turns to go", left)
		}
		// The batch of the command, ten more, and the one that sleeps.
		if n := r.poller.Waits() - before; n > 13 {
			t.Errorf("%d batches for 10 turns: it kept going for too long", n)
		}
	})
}
