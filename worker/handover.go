package worker

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/catamount-server/catamount/internal/page"
)

// A worker that leaves gives its connections to its siblings, who read them out
// of a queue that all workers share: each as one record with the descriptor and
// what has been received and not served. What is in the kernel's buffer travels
// along, so the client notices nothing, even if it is sending at that moment.
//
// A connection can go when it is between two requests, or when only part of a
// head has come. Others are served first, and go then. Bridged connections have
// their TLS state here and stay; so do those whose request body is not whole.

// handOver is the leaving worker's part. It is the reactor's, but for on.
type handOver struct {
	// on: what is between two requests goes to siblings.
	on     atomic.Bool
	socket int
	// retryAt: siblings were not ready for what is left; 0: nothing is.
	retryAt int64
	// until is when to give up, failingSince since when nothing could be sent.
	until, failingSince int64
}

const (
	// handOverRetry is how often a full queue is tried again.
	handOverRetry = 2 * time.Millisecond
	// handOverPatience is how long nobody may take anything, before the clients
	// are let go.
	handOverPatience = 10 * time.Second
	// handOverBytes bounds what of a client's bytes goes with it. Who has more
	// in memory is in the middle of a long head, and is served here.
	handOverBytes = 48 << 10
)

// beginHandOver is beginDrain for a worker that has siblings. socket is where
// connections are sent; deadline, on the reactor's clock, is when to give up.
func (s *Server) beginHandOver(socket int, deadline int64) {
	ready := make(chan struct{})
	if s.reactor.Do(func() {
		s.handOver.socket, s.handOver.until = socket, deadline
		close(ready)
	}) != nil {
		return
	}
	<-ready
	s.handOver.on.Store(true)
	s.beginDrain(false)
}

// endHandOver lets those go that nobody has taken.
func (s *Server) endHandOver() {
	if s.handOver.on.Swap(false) {
		s.handOver.retryAt = 0
		s.drainWaiting()
	}
}

// announcesClose: the connection does not outlast the answer being made.
func (s *Server) announcesClose(c *Client) bool {
	if s.draining.Load() && (!s.handOver.on.Load() || c.bridged != nil) {
		return true
	}
	return s.stopping != nil && s.stopping.Load() != 0
}

// isToFinish: the master has told all workers to end, so that no sibling will
// take a connection.
func (s *Server) isToFinish() bool {
	return s.options.Slot != nil && page.Command(s.options.Slot.Command.Load()) >= page.Finish
}

// mayPart reports whether a client that nothing of is being served can go to a
// sibling as it is.
func (s *Server) mayPart(c *Client) bool {
	if !s.handOver.on.Load() || c.bridged != nil {
		return false
	}
	switch c.state {
	case StateNew, StateIdle, StateHead:
	default:
		return false
	}
	p := c.pending
	return p == nil || p.x == nil && p.discarding == nil && p.out.mem == nil && len(c.unread()) <= handOverBytes
}

// keepsFor reports whether a client stays, though the server leaves: it is to go
// to a sibling as soon as it can.
func (s *Server) keepsFor(c *Client) bool { return s.handOver.on.Load() && c.bridged == nil }

// sendOn ends a place's part in a client: a sibling goes on with it, whatever is
// here already of its next request.
func (s *Server) sendOn(sl *slot, sc *scratch) {
	sl.Value.exchange.Store(nil)
	if s.flush(sl, sc, thenIdle) {
		s.post(sl, StateIdle, sc.now)
	}
}

// part gives a client that the reactor owns to a sibling. False: it is still
// here; perhaps for the moment only, then retryAt is set.
func (s *Server) part(sl *slot) bool {
	c, h := &sl.Value, &s.handOver
	if !s.mayPart(c) {
		return false
	}
	if h.retryAt != 0 { // others are first
		return false
	}
	now := s.reactor.Now()
	if g := s.gate.siblings; g == nil || !g.hasLive() || s.isToFinish() {
		s.retryHandOver(now)
		return false
	}
	r := handOverRecord{Bind: s.listenerOf(c).bind, Served: c.served, Peer: c.peer, Age: now - c.since, HeadAge: -1,
		Sender: os.Getpid(), Bytes: c.unread()}
	if c.inFlight() {
		r.HeadAge = now - c.pending.headAt
	}
	switch err := sendDescriptor(h.socket, sl.FD(), r.append(nil)); {
	case err == nil:
	case isQueueFull(err):
		s.retryHandOver(now)
		return false
	default:
		s.log.error(limitKey{event: "hand-over"}, "connections cannot be handed over to siblings; they are closed instead", "err", err)
		h.on.Store(false)
		_ = s.reactor.Do(s.drainWaiting)
		return false
	}
	h.failingSince = 0
	s.stats.handedOver.Add(1)
	// The connection lives on elsewhere: closing the descriptor would leave it in
	// our epoll set.
	_ = s.reactor.Detach(sl)
	s.close(sl)
	return true
}

func (s *Server) retryHandOver(now int64) {
	h := &s.handOver
	h.retryAt = now + int64(handOverRetry)
	if h.failingSince == 0 {
		h.failingSince = now
	}
}

// handOverAgain is called after each batch.
func (s *Server) handOverAgain() {
	h := &s.handOver
	now := s.reactor.Now()
	switch {
	case h.retryAt == 0 && now < h.until || !h.on.Load():
	case s.isToFinish():
		s.endHandOver()
	case now >= h.until || h.failingSince != 0 && now-h.failingSince >= int64(handOverPatience):
		s.log.warn(limitKey{event: "hand-over"}, "no sibling has taken the connections that are left; they are closed", "connections", s.reactor.Size())
		s.endHandOver()
	case now >= h.retryAt:
		h.retryAt = 0
		s.drainWaiting()
	}
}

// patienceOfHandOver is how long the reactor may sleep.
func (s *Server) patienceOfHandOver(limit time.Duration) time.Duration {
	h := &s.handOver
	if !h.on.Load() {
		return limit
	}
	next := h.until
	if h.retryAt != 0 {
		next = min(next, h.retryAt)
	}
	left := max(time.Duration(next-s.reactor.Now()), 0)
	if limit >= 0 {
		left = min(left, limit)
	}
	return left
}

// handOverRecord is what goes along with a descriptor.
type handOverRecord struct {
	Bind    string // of the listener that the connection came from
	Served  uint32
	Peer    address
	Age     int64 // how long it has been in its state, in nanoseconds
	HeadAge int64 // since the first byte of the request that is not whole; -1: there is none
	Sender  int
	Bytes   []byte // received and not served
}

// The record, all numbers big-endian:
//
//	 0  magic "cata"       4  version      6  length of the bind
//	 8  served            12  address family, 0      14  port      16  address
//	32  age               40  age of the head        48  sender    52  length of the bytes
//	56  bind, then bytes
const (
	handOverMagic   = "cata"
	handOverVersion = 1
	handOverHead    = 56
)

func (r *handOverRecord) append(b []byte) []byte {
	order := binary.BigEndian
	b = append(b, handOverMagic...)
	b = order.AppendUint16(b, handOverVersion)
	b = order.AppendUint16(b, uint16(len(r.Bind)))
	b = order.AppendUint32(b, r.Served)
	b = append(b, r.Peer.family, 0)
	b = order.AppendUint16(b, r.Peer.port)
	b = append(b, r.Peer.ip[:]...)
	b = order.AppendUint64(b, uint64(r.Age))
	b = order.AppendUint64(b, uint64(r.HeadAge))
	b = order.AppendUint32(b, uint32(r.Sender))
	b = order.AppendUint32(b, uint32(len(r.Bytes)))
	b = append(b, r.Bind...)
	return append(b, r.Bytes...)
}

// parseHandOver reads a record. Bytes lies in b.
func parseHandOver(b []byte) (r handOverRecord, err error) {
	order := binary.BigEndian
	switch {
	case len(b) < handOverHead:
		return r, fmt.Errorf("%d bytes, want %d at least", len(b), handOverHead)
	case string(b[:4]) != handOverMagic:
		return r, fmt.Errorf("starts with %s, want %q", quote(b[:4]), handOverMagic)
	case order.Uint16(b[4:]) != handOverVersion:
		return r, fmt.Errorf("version %d, want %d", order.Uint16(b[4:]), handOverVersion)
	}
	bind, bytes := int(order.Uint16(b[6:])), int(order.Uint32(b[52:]))
	if len(b) != handOverHead+bind+bytes {
		return r, fmt.Errorf("%d bytes, want %d", len(b), handOverHead+bind+bytes)
	}
	r.Served = order.Uint32(b[8:])
	r.Peer.family, r.Peer.port = b[12], order.Uint16(b[14:])
	copy(r.Peer.ip[:], b[16:32])
	r.Age, r.HeadAge = int64(order.Uint64(b[32:])), int64(order.Uint64(b[40:]))
	r.Sender = int(order.Uint32(b[48:]))
	r.Bind = string(b[handOverHead : handOverHead+bind])
	r.Bytes = b[handOverHead+bind:]
	if family := r.Peer.family; family != 0 && family != 4 && family != 6 || r.Age < 0 || r.HeadAge < -1 {
		return r, fmt.Errorf("impossible address family (%d) or age (%d, %d)", family, r.Age, r.HeadAge)
	}
	return r, nil
}

// takeHandedOver is acceptBatch for the queue of connections that siblings hand
// over.
func (s *Server) takeHandedOver(l *listener, fd int) error {
	for range acceptBatchSize {
		if s.awaitsRoom() || !s.mayAccept(l) {
			return nil
		}
		n, descriptors, err := receiveDescriptor(fd, s.readBuffer)
		switch {
		case err == errWouldBlock:
			s.gate.siblings.nobodyWaits()
			return nil
		case err != nil:
			return err
		}
		// It cannot be the end of the stream: the other end is open here as well.
		record, err := parseHandOver(s.readBuffer[:n])
		if err == nil && len(descriptors) != 1 {
			err = fmt.Errorf("%d descriptors, want 1", len(descriptors))
		}
		if err != nil {
			for _, fd := range descriptors {
				_ = s.sockets.close(fd)
			}
			s.log.error(limitKey{event: "hand-over"}, "refused what a sibling has handed over", "err", err)
			continue
		}
		s.takeOver(descriptors[0], &record)
		if g := s.gate.siblings; g != nil {
			g.publish(int64(s.reactor.Size()))
		}
	}
	return nil
}

// takeOver goes on with a sibling's connection where that has left it.
func (s *Server) takeOver(fd int, r *handOverRecord) {
	now := s.reactor.BatchTime()
	sl := s.enter(fd, nil)
	if sl == nil {
		return
	}
	s.stats.takenOver.Add(1)
	c := &sl.Value
	c.peer, c.served = r.Peer, r.Served
	c.listener = uint8(s.listenerFor(r.Bind))
	state := StateNew
	if r.Served > 0 {
		state = StateIdle
	}
	s.setState(c, state, now-r.Age)
	if len(r.Bytes) > 0 {
		if s.feed(sl, r.Bytes, false) {
			return
		}
		if c.inFlight() && r.HeadAge >= 0 {
			c.pending.headAt = now - r.HeadAge
		}
	}
	if !s.options.QueueRequests {
		s.reactor.Take(sl)
		if err := s.pool.Submit(sl); err != nil {
			s.post(sl, StateClosed, now)
		}
		return
	}
	s.await(sl)
}

// listenerFor finds the listener of a bind. One that the configuration does not
// have any more is served like the first.
func (s *Server) listenerFor(bind string) int {
	for _, l := range *s.gate.table.Load() {
		if l.bind == bind {
			return l.index
		}
	}
	return 0
}
