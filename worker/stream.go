package worker

import (
	"fmt"
	"io"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/catamount-server/catamount/parser"
	"github.com/catamount-server/catamount/reactor"
	"github.com/valyala/bytebufferpool"
)

const (
	// discardLimit is how much of a body that its handler left unread is read
	// and thrown away to keep the connection. net/http has the same limit.
	discardLimit = 256 << 10
	// streamBuffer is what chunked bodies and small reads go through.
	streamBuffer = readOnceSize
	// directRead is the size from which a handler's own buffer is read into.
	directRead = 4 << 10
)

// errBodyTooSlow ends a streamed body whose client sends too little.
var errBodyTooSlow = fmt.Errorf("catamount: the client sends its body too slowly: %w", os.ErrDeadlineExceeded)

// stream is the body of a request whose handler runs while the body still
// comes. The reader's goroutine takes the bytes from the socket itself and
// parks while there are none; what it does not read stays with the client,
// which is the back-pressure. From its first wait on the handler does not count
// as one of the pool's any more: a slow client holds a goroutine here, as it
// must, but no place.
type stream struct {
	body   *requestBody // the framing
	x      *exchange
	headAt int64 // when the request's first byte came, on the reactor's clock

	// Held while somebody reads, also while he waits. Whoever needs response.mu
	// as well takes this one first.
	reading sync.Mutex
	raw     *bytebufferpool.ByteBuffer // received: raw.B[off:] has not been decoded
	off     int
	data    []byte        // decoded and not read yet, a part of raw
	err     error         // io.EOF, or what ended the body; every later Read returns it
	waited  time.Duration // for bytes, altogether
	credit  time.Duration // how much longer the client may be waited for, by its rate; see pace

	// Never held while waiting.
	mu       sync.Mutex
	closed   error // what reads return once it is closed
	own      bool  // the handler has set a deadline, or none: it replaces ours
	deadline time.Time
	changed  chan struct{} // made by who waits; closed when one of the above changes

	// For those who do not read: left is the content still to come, -1 when
	// nobody knows, 0 when the body is whole.
	left          atomic.Int64
	undecoded     atomic.Int64
	broken        atomic.Bool
	endless       atomic.Bool // see skip
	wantsContinue atomic.Bool // the client waits for 100 Continue, and has not got it
}

var _ io.ReadCloser = (*stream)(nil)

// wantsStream asks the application. Its function runs on the reactor's
// goroutine, where a panic would end the process.
func (s *Server) wantsStream(x *exchange) (stream bool) {
	if s.options.StreamRequest == nil {
		return false
	}
	defer func() {
		if v := recover(); v != nil {
			stream = false
			s.stats.panics.Add(1)
			s.log.error(limitKey{event: "stream predicate"}, "StreamRequest panicked; the request is buffered", "panic", panicValue(v), "path", x.request.URL.Path)
		}
	}()
	return s.options.StreamRequest(&x.request)
}

// startStream makes the body of x one that is read as it comes. rest is what
// has come behind the head.
func (s *Server) startStream(x *exchange, head *parser.Head, rest []byte, headAt int64) {
	b := &stream{body: x.body, x: x, headAt: headAt, credit: s.options.Timeouts.BodyGrace}
	x.body.stream = b
	x.request.Body = b
	b.left.Store(x.body.remaining)
	if len(rest) > 0 {
		b.raw = takeWhole(&readPool, streamBuffer)
		b.raw.B = append(b.raw.B[:0], rest...)
		b.undecoded.Store(int64(len(rest)))
		if left := x.body.remaining; left > 0 {
			b.left.Store(max(left-int64(len(rest)), 0))
		}
	} else {
		b.wantsContinue.Store(head.ExpectContinue && head.Minor > 0)
	}
	s.stats.streams.Add(1)
}

// streamed returns the body when it is read as it comes, else nil.
func (x *exchange) streamed() *stream {
	if x.body == nil {
		return nil
	}
	return x.body.stream
}

// Read implements io.Reader.
func (b *stream) Read(p []byte) (int, error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	if err := b.refusal(); err != nil {
		return 0, err
	}
	for {
		switch {
		case len(b.data) > 0:
			n := copy(p, b.data)
			b.data = b.data[n:]
			return n, nil
		case b.err != nil:
			return 0, b.err
		case b.raw != nil && b.off < len(b.raw.B):
			b.decode()
		case len(p) == 0:
			return 0, nil
		default:
			n, err := b.receive(p)
			if n > 0 || err != nil {
				return n, err
			}
		}
	}
}

// refusal: closed, or past the handler's deadline, which counts also while
// bytes are here.
func (b *stream) refusal() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed != nil {
		return b.closed
	}
	if b.err == nil && b.overdue() {
		return b.fail(os.ErrDeadlineExceeded) // for good, as in net/http
	}
	return nil
}

// decode takes the next piece of content out of raw.
func (b *stream) decode() {
	data, rest, whole, err := b.body.decode(b.raw.B[b.off:], &b.x.server.options.Limits)
	b.data = data
	b.off = len(b.raw.B) - len(rest)
	b.undecoded.Store(int64(len(rest)))
	if err != nil {
		b.fail(b.badFraming(err))
		return
	}
	if b.body.remaining >= 0 {
		b.left.Store(b.body.remaining)
	}
	if whole {
		b.becomeWhole()
	}
}

func (b *stream) becomeWhole() {
	b.err = io.EOF
	b.left.Store(0)
	b.x.setTrailers()
	if sl := b.x.slot; sl.Seen()&(reactor.PeerClosed|reactor.HungUp) != 0 {
		b.x.server.peerGone(sl) // it shut down its side behind the body
	}
}

// fail ends the body before its time.
func (b *stream) fail(err error) error {
	b.err = err
	b.broken.Store(true)
	return err
}

// receive takes bytes from the client: content goes into p when that is worth
// it (then n is not 0), everything else into raw.
func (b *stream) receive(p []byte) (n int, err error) {
	if b.wantsContinue.Load() {
		if err := b.x.response.sendContinue(); err != nil {
			return 0, b.fail(err)
		}
	}
	target, direct := p, len(p) >= directRead && b.body.remaining > 0
	if !direct {
		target = b.emptyRaw()
	}
	if left := b.body.remaining; left > 0 && int64(len(target)) > left {
		target = target[:left] // what follows the body is not ours to read
	}
	n, err = b.receiveSome(target)
	if err != nil {
		return 0, err
	}
	b.body.arrived += int64(n)
	t := &b.x.server.options.Timeouts
	b.credit = min(b.credit+time.Duration(timeFor(int64(n), t.BodyMinRate)), t.BodyGrace)
	if !direct {
		b.raw.B = target[:n]
		b.undecoded.Store(int64(n))
		return 0, nil
	}
	b.body.remaining -= int64(n)
	b.left.Store(b.body.remaining)
	if b.body.remaining == 0 {
		b.becomeWhole()
	}
	return n, nil
}

// emptyRaw returns the whole of the buffer, in which nothing is needed any more.
func (b *stream) emptyRaw() []byte {
	if b.raw == nil {
		b.raw = takeWhole(&readPool, streamBuffer)
	}
	b.off = 0
	b.raw.B = b.raw.B[:0]
	return b.raw.B[:cap(b.raw.B)]
}

// receiveSome waits for bytes.
func (b *stream) receiveSome(target []byte) (int, error) {
	s, sl := b.x.server, b.x.slot
	for {
		sl.ClearReadable()
		n, err := s.sockets.receive(sl.FD(), target)
		switch {
		case err == errWouldBlock:
			if err := b.wait(); err != nil {
				return 0, err
			}
		case err != nil:
			s.bodyCut(b.x, err)
			return 0, b.fail(fmt.Errorf("reading the request body: %w", err))
		case n == 0:
			s.bodyCut(b.x, nil)
			return 0, b.fail(io.ErrUnexpectedEOF)
		default:
			if n == len(target) {
				sl.MarkReadable() // there may be more
			}
			s.stats.bytesIn.Add(uint64(n))
			return n, nil
		}
	}
}

// wait parks the reader until the client sends, its deadline passes, or the
// body is closed.
func (b *stream) wait() error {
	s, sl := b.x.server, b.x.slot
	if sl.Seen()&(reactor.Readable|reactor.PeerClosed|reactor.HungUp) != 0 {
		return nil
	}
	s.detach(b.x.response.place)
	began := s.reactor.Now()
	waited, credit := b.waited, b.credit
	for {
		timeout, late, changed, err := b.limit(began, credit)
		if err != nil {
			return err
		}
		seen := sl.Wait(reactor.Readable|reactor.PeerClosed, timeout, changed)
		took := time.Duration(s.reactor.Now() - began)
		b.waited, b.credit = waited+took, credit-took
		if seen != 0 {
			return nil
		}
		select {
		case <-changed:
			continue
		default:
		}
		if late == errBodyTooSlow {
			s.bodyTooSlow(b.x, b.waited)
		}
		return b.fail(late)
	}
}

// limit returns how long a wait that began then may last (0: without limit),
// what it ends with, and what tells that one of both has changed. The client's
// minimum rate counts only the time in which somebody waited for it.
func (b *stream) limit(began int64, credit time.Duration) (timeout time.Duration, late error, changed chan struct{}, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.overdue() { // also when it has been closed meanwhile, as in net/http
		return 0, nil, nil, b.fail(os.ErrDeadlineExceeded)
	}
	if b.closed != nil {
		return 0, nil, nil, b.closed
	}
	if b.changed == nil {
		b.changed = make(chan struct{})
	}
	if b.own {
		if b.deadline.IsZero() {
			return 0, nil, b.changed, nil
		}
		return max(time.Until(b.deadline), 1), os.ErrDeadlineExceeded, b.changed, nil
	}
	t := &b.x.server.options.Timeouts
	deadline := int64(math.MaxInt64)
	if t.BodyIdle > 0 {
		deadline = began + int64(t.BodyIdle)
	}
	if t.BodyMinRate > 0 {
		deadline = min(deadline, began+int64(credit))
	}
	if t.Request > 0 {
		deadline = min(deadline, b.headAt+int64(t.Request))
	}
	if deadline == math.MaxInt64 {
		return 0, nil, b.changed, nil
	}
	return max(time.Duration(deadline-b.x.server.reactor.Now()), 1), errBodyTooSlow, b.changed, nil
}

// setDeadline is SetReadDeadline: from now on it, and none of the server's
// limits, says how long a Read may wait.
func (b *stream) setDeadline(deadline time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.own, b.deadline = true, deadline
	b.tell()
}
