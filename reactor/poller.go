package reactor

import "time"

// Events is a set of what happened to a descriptor.
type Events uint32

const (
	// Readable: bytes or an end of file can be read.
	Readable Events = 1 << iota
	// Writable: the socket has room. With edge triggering it comes along with
	// most other events and then means nothing.
	Writable
	// PeerClosed: the peer has shut down its sending side (EPOLLRDHUP). It may
	// still read: a half-closed client waits for its answer.
	PeerClosed
	// HungUp: both directions are gone, or the socket has an error
	// (EPOLLHUP, EPOLLERR).
	HungUp
)

// Event is one report of a [Poller].
type Event struct {
	FD         int32
	Generation uint32
	Events     Events
}

// Poller is the kernel's side of a reactor: epoll, or a fake of it. Only Wake,
// and Remove for a client's owner (see Reactor.Detach), may be called from other
// goroutines than the reactor's.
type Poller interface {
	// Add registers a connected socket for everything, edge-triggered.
	Add(fd int, generation uint32) error
	// AddListener registers a listening socket for Readable, level-triggered:
	// several processes may share it, and whoever does not accept loses
	// nothing for the others.
	AddListener(fd int, generation uint32) error
	// Remove takes a descriptor out of the set. A closed descriptor needs no
	// Remove.
	Remove(fd int) error
	// Wait fills events and returns their number. It waits for at most timeout;
	// 0 only looks, a negative timeout waits for ever. Wake ends it with 0.
	Wait(events []Event, timeout time.Duration) (int, error)
	// Wake ends a Wait that is under way, or else the next one. It may come as
	// late as after Close.
	Wake() error
	// Close frees the set itself, not the descriptors in it.
	Close() error
}
