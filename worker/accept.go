package worker

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// listener is one socket that brings connections.
type listener struct {
	net.Listener
	index int
	fd    int
	addr  net.Addr
	bind  string // as in the configuration, of inherited listeners
	base  context.Context
	raw   syscall.RawConn // nil: connections come from Accept
	armed bool            // the reactor watches it
	// passed: connections that wait here are left to siblings, see gate.go; the
	// reactor does not watch it meanwhile.
	passed bool
	// kept: what comes from here are connections that siblings hand over.
	kept bool
	done chan error // what Serve returns
	// accept is acceptBatch bound to this listener, made once.
	accept func(fd uintptr)
	failed error // of the last acceptBatch
	// drained: accept has found the queue empty, so that every connection from
	// now on has inherited the listener's options.
	drained bool
	// multipath: what is accepted inherits none of the options set here.
	multipath bool
	once      sync.Once
}

// close closes the socket, once: some listeners mind.
func (l *listener) close() { l.once.Do(func() { _ = l.Listener.Close() }) }

// gate decides when connections are accepted. It is the reactor's.
type gate struct {
	table  atomic.Pointer[[]*listener]
	paused bool // no descriptor is left
	shut   bool // blocking mode, and the pool is full
	// takesAll: the listeners are about to be closed, perhaps by the last who
	// has them.
	takesAll bool
	// siblings is nil for a server that is alone.
	siblings *siblings
}

func (g *gate) byIndex(i int) *listener { return (*g.table.Load())[i] }

const (
	// acceptBatchSize bounds how many connections one look at a listener takes:
	// clients that are being served wait meanwhile.
	acceptBatchSize = 64
	// closedCheck is how often Serve looks whether somebody else has closed his
	// listener: epoll forgets a closed descriptor without a word.
	closedCheck = 500 * time.Millisecond
	// shortagePause is how long accepting pauses when descriptors run out.
	shortagePause = 100 * time.Millisecond
	// maxListeners is what fits the index that each client keeps.
	maxListeners = 256
)

// ServeContext is Serve with the context that requests of this listener derive
// from.
func (s *Server) ServeContext(base context.Context, l net.Listener) error {
	if s.draining.Load() {
		l.Close()
		return errServerClosed
	}
	entry, err := s.register(base, l)
	if err != nil {
		l.Close()
		return err
	}
	defer entry.close()
	if entry.raw == nil {
		return s.acceptLoop(entry)
	}
	ready := make(chan error, 1)
	if err := s.reactor.Do(func() { ready <- s.openListener(entry) }); err != nil {
		return errServerClosed
	}
	if err := <-ready; err != nil {
		return err
	}
	ticker := time.NewTicker(closedCheck)
	defer ticker.Stop()
	for {
		select {
		case err := <-entry.done:
			return err
		case <-s.finished:
			if s.reactorErr != nil {
				return s.reactorErr
			}
			return errServerClosed
		case <-ticker.C:
			if err := entry.raw.Control(func(uintptr) {}); err != nil {
				_ = s.reactor.Do(func() { s.forgetListener(entry, err) })
			}
		}
	}
}

// Serve accepts connections from l and serves them until Shutdown or Close, or
// until l is closed. It always returns an error; after Shutdown or Close it is
// http.ErrServerClosed.
func (s *Server) Serve(l net.Listener) error { return s.ServeContext(s.options.BaseContext, l) }

// register enters a listener in the table. Entries are never taken out: clients
// refer to them by index.
func (s *Server) register(base context.Context, l net.Listener) (*listener, error) {
	entry := &listener{Listener: l, addr: l.Addr(), base: base, fd: -1, done: make(chan error, 1)}
	switch l.(type) {
	case *net.TCPListener, *net.UnixListener, *sharedListener:
		raw, err := l.(syscall.Conn).SyscallConn()
		if err != nil {
			return nil, err
		}
		entry.raw = raw
	}
	s.listeners.Lock()
	defer s.listeners.Unlock()
	if s.draining.Load() {
		return nil, errServerClosed
	}
	if len(s.listeners.list) >= maxListeners {
		return nil, errors.New("catamount: too many listeners (256)")
	}
	entry.index = len(s.listeners.list)
	entry.accept = func(fd uintptr) { entry.failed = s.acceptBatch(entry, int(fd)) }
	s.listeners.list = append(s.listeners.list, entry)
	table := append([]*listener(nil), s.listeners.list...)
	s.gate.table.Store(&table)
	return entry, nil
}

// openListener makes the reactor watch a listener.
func (s *Server) openListener(l *listener) error {
	var err error
	if controlErr := l.raw.Control(func(fd uintptr) {
		l.fd = int(fd)
		if err = setNonblock(l.fd); err != nil {
			return
		}
		if tuneErr := tune(l.fd, &s.options.Liveness); tuneErr != nil {
			s.options.Logger.Warn("listener could not be tuned", "addr", l.addr.String(), "err", tuneErr)
		}
		l.multipath = isMultipath(l.fd)
		err = s.arm(l)
	}); controlErr != nil {
		return controlErr
	}
	return err
}

func (s *Server) arm(l *listener) error {
	if l.armed || l.passed || s.gate.paused || s.gate.shut {
		return nil
	}
	if err := s.reactor.Listen(l.fd); err != nil {
		return err
	}
	l.armed = true
	return nil
}

// disarm stops watching. It holds the listener while it does: if its owner has
// closed it, the number may be another descriptor's by now.
func (s *Server) disarm(l *listener) {
	if !l.armed {
		return
	}
	l.armed = false
	if err := l.raw.Control(func(uintptr) { _ = s.reactor.Unlisten(l.fd) }); err != nil {
		s.reactor.Forget(l.fd)
	}
}

func (s *Server) forgetListener(l *listener, err error) {
	if l.armed {
		l.armed = false
		s.reactor.Forget(l.fd)
	}
	select {
	case l.done <- err:
	default:
	}
}

// closeListeners ends all of them, for good. With rest everybody is taken in who
// has connected, whatever the siblings do and whether there is a place for them:
// when the last process closes the socket, its queue is lost.
func (s *Server) closeListeners(rest bool) {
	s.listeners.Lock()
	list := s.listeners.list
	s.listeners.Unlock()
	for _, l := range list {
		if l.raw == nil {
			l.close()
			continue
		}
		done := make(chan struct{})
		if s.reactor.Do(func() {
			defer close(done)
			s.disarm(l)
			if rest {
				s.gate.siblings, s.gate.takesAll = nil, true
				s.acceptAll(l)
			}
			// Here, before those who were accepted are served: perhaps it is the
			// last descriptor, and who connects from now on to then would be reset.
			l.close()
		}) == nil {
			<-done
		}
		l.close() // the reactor may have ended
		select {
		case l.done <- errServerClosed:
		default:
		}
	}
}

// acceptFrom is called when connections wait at a listener.
func (s *Server) acceptFrom(fd int) {
	for _, l := range *s.gate.table.Load() {
		if l.fd != fd || !l.armed {
			continue
		}
		if err := l.raw.Control(l.accept); err != nil {
			s.forgetListener(l, err)
		} else if l.failed != nil {
			s.acceptFailed(l, l.failed)
		}
		return
	}
}

// acceptBatch takes the connections that wait.
func (s *Server) acceptBatch(l *listener, fd int) error {
	for range acceptBatchSize {
		if s.awaitsRoom() || !s.mayAccept(l) {
			return nil
		}
		client, peer, err := s.sockets.accept(fd)
		if err != nil {
			if err == errWouldBlock {
				l.drained = true
				s.gate.siblings.nobodyWaits()
				return nil
			}
			if isGoneBeforeAccept(err) {
				continue
			}
			return err
		}
		if !l.drained || l.multipath { // it may have waited since before the listener was tuned
			_ = tune(client, &s.options.Liveness)
		}
		s.adopt(l, client, peer, nil)
		if g := s.gate.siblings; g != nil {
			g.accepted(s.reactor.BatchTime(), s.reactor.Size())
		}
	}
	return nil
}

// acceptFailed pauses accepting when there are no descriptors left, and ends
// the listener on errors that no waiting mends.
func (s *Server) acceptFailed(l *listener, err error) {
	if !isDescriptorShortage(err) {
		s.disarm(l)
		s.forgetListener(l, err)
		return
	}
	s.pauseAccepting(err)
}

func (s *Server) pauseAccepting(err error) {
	if s.gate.paused {
		return
	}
	s.gate.paused = true
	s.showAccepting(false)
	s.stats.acceptPauses.Add(1)
	s.log.error(limitKey{event: "accept paused"}, "accepting paused: out of descriptors or memory", "connections", s.reactor.Size(), "err", err)
	for _, l := range *s.gate.table.Load() {
		if l.raw != nil {
			s.disarm(l)
		}
	}
	time.AfterFunc(shortagePause, func() { _ = s.reactor.Do(s.resumeAccepting) })
}

func (s *Server) resumeAccepting() {
	if !s.gate.paused || s.draining.Load() {
		return
	}
	s.gate.paused = false
	s.showAccepting(true)
	s.log.info(limitKey{event: "accept resumed"}, "accepting resumed")
	s.rearm()
}

func (s *Server) rearm() {
	for _, l := range *s.gate.table.Load() {
		if l.raw == nil || l.armed {
			continue
		}
		var err error
		if controlErr := l.raw.Control(func(uintptr) { err = s.arm(l) }); controlErr != nil || err != nil {
			s.forgetListener(l, errors.Join(controlErr, err))
		}
	}
}

// awaitsRoom reports whether nobody is accepted until a place is free; then the
// gate is shut.
func (s *Server) awaitsRoom() bool {
	if s.options.QueueRequests || s.gate.takesAll || !s.pool.Full() {
		return false
	}
	s.shutGate()
	return true
}

// shutGate: blocking mode accepts nobody for whom there is no place (Puma's
// wait_until_not_full).
func (s *Server) shutGate() {
	s.gate.shut = true
	for _, l := range *s.gate.table.Load() {
		if l.raw != nil {
			s.disarm(l)
		}
	}
	s.whenNotFull(func() { _ = s.reactor.Do(s.openGate) })
}

// whenNotFull calls f once, as soon as the pool has a free place: at once, or
// from a pool goroutine.
func (s *Server) whenNotFull(f func()) {
	s.notFull.Lock()
	s.notFull.list = append(s.notFull.list, f)
	s.notFull.Unlock()
	s.pool.NotifyNotFull(s.callNotFull)
	if !s.pool.Full() { // it may have become so just before
		s.callNotFull()
	}
}

func (s *Server) callNotFull() {
	s.notFull.Lock()
	list := s.notFull.list
	s.notFull.list = nil
	s.notFull.Unlock()
	for _, f := range list {
		f()
	}
}

func (s *Server) openGate() {
	if !s.gate.shut || s.draining.Load() {
		return
	}
	s.gate.shut = false
	s.rearm()
}

// enter gives a connection its place in the reactor. Nil: there is none, and the
// connection has been closed.
func (s *Server) enter(fd int, b *bridge) *slot {
	if s.closed { // it was accepted just before the listener was closed
		s.turnAway(fd, b)
		return nil
	}
	sl, err := s.reactor.Add(fd)
	if err != nil {
		s.turnAway(fd, b)
		s.log.error(limitKey{event: "adopt"}, "connection could not be registered", "err", err)
		return nil
	}
	return sl
}

// adopt makes a client of an accepted descriptor.
func (s *Server) adopt(l *listener, fd int, peer address, b *bridge) {
	sl := s.enter(fd, b)
	if sl == nil {
		return
	}
	now := s.reactor.BatchTime()
	s.stats.accepted.Add(1)
	c := &sl.Value
	c.peer = peer
	c.listener = uint8(l.index)
	c.bridged = b
	s.setState(c, StateNew, now)
	if !s.options.QueueRequests {
		s.reactor.Take(sl)
		if err := s.pool.Submit(sl); err != nil {
			s.post(sl, StateClosed, now)
		}
		return
	}
	s.await(sl)
}
