package worker

import (
	"sync"
	"sync/atomic"

	"github.com/catamount-server/catamount/parser"
	"github.com/valyala/bytebufferpool"
)

// Client is one connection (Puma's client.rb). It lies in its reactor slot, and
// while it is idle it is nothing but this: no goroutine, no buffer, no timer.
// A pool goroutine or the reactor owns it, see package reactor.
type Client struct {
	peer     address
	state    State
	listener uint8 // index into Server.listeners
	then     then  // what follows once the output is written
	served   uint32
	lingered uint32
	since    int64 // when the present state began, on the reactor's clock
	// exchange is the request that is queued or served, so that the reactor can
	// cancel its context when the peer leaves.
	exchange atomic.Pointer[exchange]
	pending  *pending
	bridged  *bridge // the connection behind a socket pair; nil for real sockets
}

// then is what becomes of a client once its output has been written.
type then uint8

const (
	thenIdle   then = iota // next request
	thenLinger             // shut down our side, discard what still comes, close
	thenClose              // close: nothing unread can be left
)

// pending is what a client needs only while something of it is unfinished: a
// request that is not whole, bytes of the next one, or an answer that the
// socket has not taken.
type pending struct {
	in      *bytebufferpool.ByteBuffer // received and not consumed: in.B[off:]
	off     int
	head    parser.Head
	parsing bool      // head has seen in.B[off:] and awaits more
	x       *exchange // its body is being received
	headAt  int64     // when the first byte of the request came
	lastAt  int64     // when the last byte came
	// discarding is the body of the last request, whose handler has left some of
	// it unread: the rest is thrown away when it comes.
	discarding *requestBody
	turn       bool // it is among those who read again, see Server.again

	out  output    // the rest of answers; mem is nil when there is none
	last *exchange // of the last answer in out, for the log; nil for an answer of the server's own
}

var (
	pendingPool = sync.Pool{New: func() any { return new(pending) }}
	inPool      bytebufferpool.Pool
	outPool     bytebufferpool.Pool
	readPool    bytebufferpool.Pool // of readOnceSize, see takeWhole
	copyPool    bytebufferpool.Pool // of fileCopyLimit
)

// bufferKeep bounds what goes back to a pool: one large request must not make
// every later small one carry its buffer.
const bufferKeep = 64 << 10

func putBuffer(pool *bytebufferpool.Pool, b *bytebufferpool.ByteBuffer) {
	if b != nil && cap(b.B) <= bufferKeep {
		pool.Put(b)
	}
}

// takeWhole returns a buffer of size bytes at least, all of them to be written
// to. Its pool must have no others: bytebufferpool learns from the lengths of
// what comes back how much is worth keeping, and would take a buffer that has
// been emptied for one that nobody needs.
func takeWhole(pool *bytebufferpool.Pool, size int) *bytebufferpool.ByteBuffer {
	b := pool.Get()
	if cap(b.B) < size {
		b.B = make([]byte, size)
	}
	b.B = b.B[:cap(b.B)]
	return b
}

func putWhole(pool *bytebufferpool.Pool, b *bytebufferpool.ByteBuffer) {
	b.B = b.B[:cap(b.B)]
	putBuffer(pool, b)
}

func (c *Client) ensurePending() *pending {
	if c.pending == nil {
		c.pending = pendingPool.Get().(*pending)
	}
	return c.pending
}

// unread returns the bytes received and not consumed.
func (c *Client) unread() []byte {
	if c.pending == nil || c.pending.in == nil {
		return nil
	}
	return c.pending.in.B[c.pending.off:]
}

// HasBackToBackRequests reports whether bytes behind the last request are here
// already (Puma's has_back_to_back_requests?).
func (c *Client) HasBackToBackRequests() bool {
	return c.pending != nil && c.pending.in != nil && !c.pending.parsing
}

// hasTurn reports whether the client will be read without an event.
func (c *Client) hasTurn() bool { return c.pending != nil && c.pending.turn }

// inFlight reports whether part of a request has come.
func (c *Client) inFlight() bool {
	return c.pending != nil && (c.pending.x != nil || c.pending.parsing && c.pending.head.Started())
}

// settle gives back what nothing needs any more.
func (c *Client) settle() {
	p := c.pending
	if p == nil {
		return
	}
	if p.in != nil && p.off == len(p.in.B) {
		putBuffer(&inPool, p.in)
		p.in, p.off = nil, 0
	}
	if p.in == nil && p.x == nil && p.out.mem == nil && p.discarding == nil {
		p.head.Reset()
		*p = pending{head: p.head}
		pendingPool.Put(p)
		c.pending = nil
	}
}

// discard gives everything back: the connection is over.
func (s *Server) discard(c *Client) {
	p := c.pending
	if p == nil {
		return
	}
	if p.x != nil {
		p.x.abandon()
	}
	putBuffer(&inPool, p.in)
	if p.out.mem != nil {
		s.drop(&p.out)
		putBuffer(&outPool, p.out.mem)
	}
	p.head.Reset()
	*p = pending{head: p.head}
	pendingPool.Put(p)
	c.pending = nil
}

// TryToFinish takes bytes that have come and returns the request once it is
// whole (Puma's try_to_finish). A nil exchange and no error mean: not yet.
// What lies behind the request stays for the next one. The error is a
// *parser.Error or says that the body could not be stored.
//
// head is the caller's scratch, fresh his buffer: a request that is here in one
// piece is parsed where it lies, and only what is incomplete is copied.
func (s *Server) TryToFinish(sl *slot, head *parser.Head, fresh []byte, now int64) (*exchange, error) {
	c := &sl.Value
	p := c.pending
	if p != nil && p.x != nil {
		return s.continueBody(sl, fresh, now)
	}
	if p != nil && p.discarding != nil {
		rest, whole, err := p.discarding.discard(fresh, &s.options.Limits)
		if err != nil || !whole {
			return nil, err
		}
		p.discarding = nil
		fresh = rest
		c.settle()
		p = c.pending
	}
	input, kept := fresh, false
	if p != nil && p.in != nil {
		if p.off > 0 && len(fresh) > 0 {
			// What was before is done with. Without this a client each of whose
			// reads ends in the middle of a request would have all that it ever
			// sent kept.
			p.in.B = p.in.B[:copy(p.in.B, p.in.B[p.off:])]
			p.off = 0
		}
		p.in.B = append(p.in.B, fresh...)
		input, kept = p.in.B[p.off:], true
	}
	if p != nil && p.parsing {
		head = &p.head
	} else {
		head.Reset()
	}
	n, err := head.Parse(input, &s.options.Limits)
	if err == parser.ErrIncomplete {
		s.keepPartial(c, head, input, kept, now)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	x, err := s.newExchange(sl, head, input[:n])
	if err != nil {
		return nil, err
	}
	headAt := now
	if p != nil && p.parsing {
		headAt = p.headAt
		p.parsing = false
	}
	if head.ExpectOther && head.Minor > 0 {
		x.abandon()
		return nil, errExpectation
	}
	switch {
	case x.body != nil:
	case kept: // in a pipeline, or it came in pieces
		p.off += n
		if p.off == len(p.in.B) {
			c.settle()
		}
		return x, nil
	case n == len(input):
		return x, nil // the usual case: nothing before it, nothing behind it
	}
	return s.startBody(sl, x, head, input[n:], kept, headAt, now)
}

// keepPartial moves an incomplete head into memory of the client's own.
func (s *Server) keepPartial(c *Client, head *parser.Head, input []byte, kept bool, now int64) {
	if len(input) == 0 {
		return
	}
	p := c.ensurePending()
	if !kept {
		p.in, p.off = inPool.Get(), 0
		p.in.B = append(p.in.B[:0], input...)
	}
	if !p.parsing {
		// The parser's state moves along, so that no byte is looked at twice;
		// swapped, because both own memory for fields.
		*head, p.head = p.head, *head
		p.parsing = true
		p.headAt = now
	}
	if !p.head.Started() {
		p.headAt = now // empty lines before a request begin nothing
	}
	p.lastAt = now
}

// startBody takes the first bytes behind a whole head.
func (s *Server) startBody(sl *slot, x *exchange, head *parser.Head, rest []byte, kept bool, headAt, now int64) (*exchange, error) {
	c := &sl.Value
	whole := true
	streams := x.body != nil && s.wantsStream(x)
	if streams {
		s.startStream(x, head, rest, headAt)
		rest = nil
	} else if x.body != nil {
		var err error
		if rest, whole, err = x.body.fill(rest, &s.options); err != nil {
			x.abandon()
			return nil, err
		}
	}
	switch {
	case kept:
		c.pending.off = len(c.pending.in.B) - len(rest)
	case len(rest) > 0:
		p := c.ensurePending()
		p.in, p.off = inPool.Get(), 0
		p.in.B = append(p.in.B[:0], rest...)
	}
	if !whole {
		p := c.ensurePending()
		p.x, p.headAt, p.lastAt = x, headAt, now
		s.keepPace(x.body, x.body.arrived, now)
		x.body.expectContinue = head.ExpectContinue && head.Minor > 0
	} else if x.body != nil && !streams {
		x.setTrailers()
	}
	c.settle()
	if !whole {
		return nil, nil
	}
	return x, nil
}

// continueBody feeds the body of a request whose head was whole before.
func (s *Server) continueBody(sl *slot, fresh []byte, now int64) (*exchange, error) {
	c := &sl.Value
	p := c.pending
	x := p.x
	p.lastAt = now
	rest, whole, err := x.body.fill(fresh, &s.options)
	if err != nil {
		return nil, err
	}
	if !whole {
		s.keepPace(x.body, int64(len(fresh)), now)
		return nil, nil
	}
	p.x = nil
	if len(rest) > 0 {
		p.in, p.off = inPool.Get(), 0
		p.in.B = append(p.in.B[:0], rest...)
	}
	x.setTrailers()
	c.settle()
	return x, nil
}

// keepPace credits a buffered body with bytes that have come.
func (s *Server) keepPace(b *requestBody, bytes, now int64) {
	t := &s.options.Timeouts
	if b.pace.due == 0 {
		b.pace.update(max(now, 1), t.BodyMinRate, t.BodyGrace)
	}
	b.pace.bytes += bytes
	b.pace.update(max(now, 1), t.BodyMinRate, t.BodyGrace)
}
