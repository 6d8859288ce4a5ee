package reactortest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/catamount-server/catamount/reactor"
)

// ErrNotRegistered is the cause of what is returned for a descriptor that is
// not in the set.
var ErrNotRegistered = errors.New("not registered")

// ErrClosed is what a Poller returns after Close.
var ErrClosed = errors.New("reactortest: the poller is closed")

// Operation says which method of the Poller a [Call] was.
type Operation string

// The operations of a reactor on its descriptors.
const (
	Add         Operation = "Add"
	AddListener Operation = "AddListener"
	Remove      Operation = "Remove"
)

// Call is one request of the reactor.
type Call struct {
	Operation  Operation
	FD         int
	Generation uint32 // of the registration; for Remove the one that ended, or 0
}

// Poller is a [reactor.Poller] whose events come from the test. Make one with
// [NewPoller].
type Poller struct {
	// Fail, when set, is asked before each Add, AddListener and Remove; its
	// error is returned in place of doing it. Set it before the reactor runs.
	Fail func(Call) error

	mu       sync.Mutex
	members  map[int]uint32 // descriptor to generation
	queue    []reactor.Event
	calls    []Call
	woken    bool
	wakes    int
	waits    int
	broken   error
	closed   bool
	happened chan struct{} // capacity 1: look again
}

var _ reactor.Poller = (*Poller)(nil)

// NewPoller returns an empty Poller. Call it inside the bubble if there is one.
func NewPoller() *Poller {
	return &Poller{members: make(map[int]uint32), happened: make(chan struct{}, 1)}
}

// Event makes something happen to a descriptor; the reactor learns of it with
// the generation under which the descriptor is registered now. The error is
// ErrNotRegistered when it is not: a kernel would not report it either.
func (p *Poller) Event(fd int, events reactor.Events) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	generation, ok := p.members[fd]
	if !ok {
		return fmt.Errorf("reactortest: event for descriptor %d: %w", fd, ErrNotRegistered)
	}
	p.inject(reactor.Event{FD: int32(fd), Generation: generation, Events: events})
	return nil
}

// Inject delivers events as they are, registered or not, and all of them in
// one batch if the reactor's is large enough. It is for events that a kernel
// reports for a descriptor that has been closed, and perhaps reused, since:
// they carry a generation of the past. Generation 0 belongs to the wake-up in
// an epoll set, which never reports it; such events are dropped here as well.
func (p *Poller) Inject(events ...reactor.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inject(events...)
}

func (p *Poller) inject(events ...reactor.Event) {
	for _, event := range events {
		if event.Generation != 0 {
			p.queue = append(p.queue, event)
		}
	}
	p.signal()
}

// Closed tells the Poller that a descriptor was closed: as in a kernel, its
// registration ends, and what happened to it and was not fetched yet is lost.
// Tests whose descriptors are never reused can do without.
func (p *Poller) Closed(fd int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.members, fd)
	p.queue = slices.DeleteFunc(p.queue, func(event reactor.Event) bool { return int(event.FD) == fd })
}

// Break makes the Wait under way, and all later ones, return err.
func (p *Poller) Break(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken = err
	p.signal()
}

// Generation returns the generation under which a descriptor is registered,
// and whether it is.
func (p *Poller) Generation(fd int) (generation uint32, registered bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	generation, registered = p.members[fd]
	return generation, registered
}

// Calls returns what was asked for so far and succeeded, oldest first.
func (p *Poller) Calls() []Call {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

// Waits is the number of calls of Wait: how often the reactor has looked.
func (p *Poller) Waits() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waits
}

// Wakes is the number of calls of Wake, including those that found the one
// before them still pending.
func (p *Poller) Wakes() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.wakes
}

// IsClosed reports whether the reactor has closed its set.
func (p *Poller) IsClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// Add implements [reactor.Poller]. A descriptor that is registered already is
// taken for a reused number: the Poller need not be told of each close.
func (p *Poller) Add(fd int, generation uint32) error {
	return p.register(Call{Add, fd, generation})
}

// AddListener implements [reactor.Poller].
func (p *Poller) AddListener(fd int, generation uint32) error {
	return p.register(Call{AddListener, fd, generation})
}

func (p *Poller) register(call Call) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.refused(call); err != nil {
		return err
	}
	p.members[call.FD] = call.Generation
	p.calls = append(p.calls, call)
	return nil
}

// Remove implements [reactor.Poller].
func (p *Poller) Remove(fd int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	generation, ok := p.members[fd]
	call := Call{Remove, fd, generation}
	if err := p.refused(call); err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("reactortest: removing descriptor %d: %w", fd, ErrNotRegistered)
	}
	delete(p.members, fd)
	p.calls = append(p.calls, call)
	return nil
}

func (p *Poller) refused(call Call) error {
	if p.closed {
		return ErrClosed
	}
	if p.Fail != nil {
		return p.Fail(call)
	}
	return nil
}

// Wait implements [reactor.Poller].
func (p *Poller) Wait(events []reactor.Event, timeout time.Duration) (int, error) {
	p.mu.Lock()
	p.waits++
	p.mu.Unlock()
	var expired <-chan time.Time
	if timeout > 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		expired = timer.C
	}
	for {
		n, done, err := p.fetch(events)
		if done || timeout == 0 {
			return n, err
		}
		select {
		case <-p.happened:
		case <-expired:
			timeout = 0 // look once more
		}
	}
}

// fetch takes what is there; done says whether that ends a Wait.
func (p *Poller) fetch(events []reactor.Event) (n int, done bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return 0, true, ErrClosed
	case p.broken != nil:
		return 0, true, p.broken
	}
	n = copy(events, p.queue)
	p.queue = slices.Delete(p.queue, 0, n)
	done = n > 0 || p.woken
	p.woken = false
	return n, done, nil
}

// Wake implements [reactor.Poller].
func (p *Poller) Wake() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wakes++
	if p.closed {
		return ErrClosed
	}
	p.woken = true
	p.signal()
	return nil
}

// Close implements [reactor.Poller].
func (p *Poller) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	p.closed = true
	p.signal()
	return nil
}

// signal makes a Wait look again. The mutex is held.
func (p *Poller) signal() {
	select {
	case p.happened <- struct{}{}:
	default:
	}
}
