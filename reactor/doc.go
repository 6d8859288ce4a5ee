// Package reactor watches many waiting clients with one goroutine and one
// epoll set.
//
// It knows no HTTP. It knows file descriptors, deadlines and a [Handler]: the
// handler is called when something can be read or written, when a deadline has
// passed, when a listener has a connection waiting, and when a pool goroutine
// gives a client back. Its caller is package worker, which puts the life of an
// HTTP connection behind that interface.
//
// In the order in which a reader needs them:
//
//   - [Slot] is the place of one client: its descriptor, its deadline, the
//     atomic word that says who owns it, and the caller's own value.
//   - [Reactor] owns the slots, the epoll set and the timeouts; Run is its
//     goroutine.
//   - [Poller] is the kernel's side; package reactortest has one without a
//     kernel, so that every timeout can be tested in virtual time.
//
// # Who owns what
//
// A client belongs either to the reactor's goroutine or to one pool goroutine
// (its owner). [Reactor.Take] marks the hand-over to the pool,
// [Slot.Release] and [Reactor.Post] the way back. Between the two the owner
// may use the slot's value and its descriptor; the reactor only records in the
// slot's word what epoll reports meanwhile, and tells the handler when the peer
// has gone. Release refuses when something was recorded, so that no edge is
// lost. Only the reactor's goroutine closes descriptors.
//
// The invariant: every open descriptor is registered exactly once, with edge
// triggering and for everything (IN, OUT, RDHUP), and is never modified
// afterwards; an event is believed only if the generation in its data is the
// slot's.
package reactor
