package reactor_test

import (
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/catamount-server/catamount/reactor"
)

// busyKernel has an event for a bystander at every look, so that the reactor
// never sleeps, and the test's events in between. It runs on the reactor's
// goroutine and never gives up the processor: whoever else runs, runs because
// the reactor yielded, or because the scheduler took its processor away after
// 10 ms, which is thousands of batches.
type busyKernel struct {
	batch   int
	script  func(batch int) []reactor.Event
	members map[int]uint32
}

const bystander = 1

var errOver = errors.New("the test is over")

func (k *busyKernel) Add(fd int, generation uint32) error { k.members[fd] = generation; return nil }
func (k *busyKernel) AddListener(int, uint32) error       { return nil }
func (k *busyKernel) Remove(int) error                    { return nil }
func (k *busyKernel) Wake() error                         { return nil }
func (k *busyKernel) Close() error                        { return nil }

func (k *busyKernel) Wait(events []reactor.Event, _ time.Duration) (int, error) {
	k.batch++
	if k.batch > 5_000_000 {
		return 0, errOver
	}
	events[0] = k.event(bystander, reactor.Writable)
	return 1 + copy(events[1:], k.script(k.batch)), nil
}

func (k *busyKernel) event(fd int, events reactor.Events) reactor.Event {
	return reactor.Event{FD: int32(fd), Generation: k.members[fd], Events: events}
}

// soon is how many batches a goroutine may wait that the reactor has woken: it
// should have run before the next one. Of turns at most forgiven may be late,
// for what else goes on in the process and on the machine.
const (
	soon     = 2
	turns    = 1000
	forgiven = 3
)

// latency counts how many batches passed between a cause and its effect.
type latency struct {
	count, late, worst int
}

func (l *latency) note(batches int) {
	l.count++
	l.worst = max(l.worst, batches)
	if batches > soon {
		l.late++
	}
}

func (l *latency) check(t *testing.T, err error) {
	t.Helper()
	if err != nil || l.late > forgiven {
		t.Errorf("of %d turns %d took more than %d batches, the worst %d; Run = %v", l.count, l.late, soon, l.worst, err)
	}
}

// busyReactor returns a reactor with a bystander and a client, for one
// processor. The script says what happens to the client in a batch.
func busyReactor(t *testing.T, h *hooks, script func(batch int) reactor.Events) (*reactor.Reactor[int], *busyKernel, *slot) {
	t.Helper()
	processors := runtime.GOMAXPROCS(1)
	t.Cleanup(func() { runtime.GOMAXPROCS(processors) })
	const client = 5
	k := &busyKernel{members: map[int]uint32{}}
	k.script = func(batch int) []reactor.Event {
		if events := script(batch); events != 0 {
			return []reactor.Event{k.event(client, events)}
		}
		return nil
	}
	r, err := reactor.New[int](h, reactor.Options{Poller: k})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Add(bystander); err != nil {
		t.Fatal(err)
	}
	s, err := r.Add(client)
	if err != nil {
		t.Fatal(err)
	}
	return r, k, s
}

// TestHandOverOnOneProcessor: a task that was handed over starts at the end of
// the batch, although the reactor keeps finding events.
func TestHandOverOnOneProcessor(t *testing.T) {
	var l latency
	at := 0 // the batch of a hand-over under way
	h := new(hooks)
	r, k, s := busyReactor(t, h, func(batch int) reactor.Events {
		if batch%10 == 0 && at == 0 {
			return reactor.Readable
		}
		return 0
	})
	tasks, ran := make(chan *slot, 1), make(chan struct{}, 1)
	var pool sync.WaitGroup
	pool.Go(func() {
		for s := range tasks {
			s.Release()
			ran <- struct{}{}
		}
	})
	h.OnReady = func(ready *slot, _ reactor.Events) {
		if ready == s {
			at = k.batch
			r.Take(s)
			tasks <- s
		}
	}
	h.OnBatchEnd = func() {
		select {
		case <-ran:
			l.note(k.batch - at)
			at = 0
			if l.count == turns {
				r.Stop()
			}
		default:
		}
	}
	l.check(t, r.Run())
	close(tasks)
	pool.Wait()
}

// TestParkedOwnerOnOneProcessor: an owner that waits for bytes or for room
// runs as soon as a task that is handed over.
func TestParkedOwnerOnOneProcessor(t *testing.T) {
	for _, event := range []reactor.Events{reactor.Readable, reactor.Writable} {
		var l latency
		at := 0
		parks, woken := make(chan struct{}, 1), make(chan struct{}, 1)
		h := new(hooks)
		r, k, s := busyReactor(t, h, func(batch int) reactor.Events {
			select {
			case <-parks:
				at = batch
				return event
			default:
				return 0
			}
		})
		r.Take(s)
		quit := make(chan struct{})
		var owner sync.WaitGroup
		owner.Go(func() {
			for range turns {
				s.ClearReadable()
				s.ClearWritable()
				parks <- struct{}{}
				if s.Wait(event, 0, quit) == 0 {
					return
				}
				woken <- struct{}{}
			}
		})
		h.OnBatchEnd = func() {
			select {
			case <-woken:
				l.note(k.batch - at)
				if l.count == turns {
					r.Stop()
				}
			default:
			}
		}
		l.check(t, r.Run())
		close(quit)
		owner.Wait()
	}
}

// TestObservedOnOneProcessor: whoever Observed wakes, for instance by ending
// the context of a request, runs as soon.
func TestObservedOnOneProcessor(t *testing.T) {
	var l latency
	at := 0
	h := new(hooks)
	r, k, s := busyReactor(t, h, func(batch int) reactor.Events {
		if batch%10 == 0 && at == 0 {
			return reactor.PeerClosed
		}
		return 0
	})
	r.Take(s)
	gone, noticed := make(chan struct{}, 1), make(chan struct{}, 1)
	var watcher sync.WaitGroup
	watcher.Go(func() {
		for range gone {
			noticed <- struct{}{}
		}
	})
	h.OnObserved = func(*slot, reactor.Events) {
		at = k.batch
		gone <- struct{}{}
	}
	h.OnBatchEnd = func() {
		select {
		case <-noticed:
			l.note(k.batch - at)
			at = 0
			if l.count == turns {
				r.Stop()
			}
		default:
		}
	}
	l.check(t, r.Run())
	close(gone)
	watcher.Wait()
}
