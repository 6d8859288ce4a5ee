package reactor_test

import (
	"errors"
	"runtime"
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
	if k.batch > 1_000_000 {
		return 0, errOver
	}
	events[0] = k.event(bystander, reactor.Writable)
	return 1 + copy(events[1:], k.script(k.batch)), nil
}

func (k *busyKernel) event(fd int, events reactor.Events) reactor.Event {
	return reactor.Event{FD: int32(fd), Generation: k.members[fd], Events: events}
}

// busyReactor runs a reactor on one processor until its handler stops it.
func busyReactor(t *testing.T, h *hooks, script func(k *busyKernel) []reactor.Event, clients ...int) (*reactor.Reactor[int], *busyKernel, map[int]*slot) {
	t.Helper()
	processors := runtime.GOMAXPROCS(1)
	t.Cleanup(func() { runtime.GOMAXPROCS(processors) })
	k := &busyKernel{members: map[int]uint32{}}
	k.script = func(int) []reactor.Event { return script(k) }
	r, err := reactor.New[int](h, reactor.Options{Poller: k})
	if err != nil {
		t.Fatal(err)
	}
	slots := map[int]*slot{}
	for _, fd := range append(clients, bystander) {
		if slots[fd], err = r.Add(fd); err != nil {
			t.Fatal(err)
		}
	}
	return r, k, slots
}

// soon is how many batches the goroutine may wait. In the batch behind the
// hand-over it should have run; two more forgive a garbage collection.
const soon = 3

// TestHandOverOnOneProcessor: a task that was handed over starts at the end of
// the batch, although the reactor keeps finding events.
func TestHandOverOnOneProcessor(t *testing.T) {
	const client, hands = 5, 100
	tasks := make(chan int, 1)
	var latest, handed, at int
	h := new(hooks)
	var r *reactor.Reactor[int]
	r, k, slots := busyReactor(t, h, func(k *busyKernel) []reactor.Event {
		if k.batch%10 == 0 && at == 0 {
			return []reactor.Event{k.event(client, reactor.Readable)}
		}
		return nil
	}, client)
	h.OnReady = func(s *slot, _ reactor.Events) {
		if s.FD() == client {
			at = k.batch
			r.Take(s)
			tasks <- at
		}
	}
	var last int // the batch in which the task was seen to have run
	done := make(chan struct{})
	started := make(chan int, 1)
	go func() {
		defer close(done)
		for task := range tasks {
			slots[client].Release()
			started <- task
		}
	}()
	h.OnBatchEnd = func() {
		select {
		case task := <-started:
			last = k.batch
			latest = max(latest, last-task)
			at = 0
			if handed++; handed == hands {
				r.Stop()
			}
		default:
		}
	}
	if err := r.Run(); err != nil {
		t.Fatalf("Run = %v after %d of %d hand-overs", err, handed, hands)
	}
	close(tasks)
	<-done
	if latest > soon {
		t.Errorf("a task ran %d batches after it was handed over, want at most %d", latest, soon)
	}
}

// TestParkedOwnerOnOneProcessor: an owner that waits for bytes or for room
// runs as soon as a task that is handed over.
func TestParkedOwnerOnOneProcessor(t *testing.T) {
	const client, turns = 5, 100
	for _, event := range []reactor.Events{reactor.Readable, reactor.Writable} {
		var latest, count, at int
		h := new(hooks)
		woken := make(chan struct{}, 1)
		parks := make(chan struct{}, 1)
		var r *reactor.Reactor[int]
		r, k, slots := busyReactor(t, h, func(k *busyKernel) []reactor.Event {
			select {
			case <-parks:
				at = k.batch
				return []reactor.Event{k.event(client, event)}
			default:
				return nil
			}
		}, client)
		s := slots[client]
		r.Take(s)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range turns {
				s.ClearReadable()
				s.ClearWritable()
				parks <- struct{}{}
				s.Wait(event, 0, nil)
				woken <- struct{}{}
			}
		}()
		h.OnBatchEnd = func() {
			select {
			case <-woken:
				latest = max(latest, k.batch-at)
				if count++; count == turns {
					r.Stop()
				}
			default:
			}
		}
		if err := r.Run(); err != nil {
			t.Fatalf("Run = %v after %d of %d turns", err, count, turns)
		}
		<-done
		if latest > soon {
			t.Errorf("%s: an owner ran %d batches after it was woken, want at most %d", name(event), latest, soon)
		}
	}
}

// TestObservedOnOneProcessor: whoever Observed wakes, for instance by ending
// the context of a request, runs as soon.
func TestObservedOnOneProcessor(t *testing.T) {
	const client = 5
	ended, seen := make(chan struct{}), make(chan struct{})
	var at, noticed int
	h := new(hooks)
	var r *reactor.Reactor[int]
	r, k, slots := busyReactor(t, h, func(k *busyKernel) []reactor.Event {
		if k.batch == 1000 {
			return []reactor.Event{k.event(client, reactor.PeerClosed)}
		}
		return nil
	}, client)
	r.Take(slots[client])
	h.OnObserved = func(*slot, reactor.Events) {
		at = k.batch
		close(ended)
	}
	go func() {
		<-ended
		close(seen)
	}()
	h.OnBatchEnd = func() {
		select {
		case <-seen:
			noticed = k.batch
			r.Stop()
		default:
		}
	}
	if err := r.Run(); err != nil {
		t.Fatal(err)
	}
	if late := noticed - at; late > soon {
		t.Errorf("whoever waits for the end ran %d batches later, want at most %d", late, soon)
	}
}
