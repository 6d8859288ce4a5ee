package worker

import (
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/catamount-server/catamount/parser"
	"github.com/valyala/bytebufferpool"
)

// How a streamed body ends: closed by its handler, whole, broken, or left with
// the client when the handler has returned.

// Close implements io.Closer. It waits for nobody: a Read under way ends.
func (b *stream) Close() error {
	b.close(http.ErrBodyReadAfterClose)
	return nil
}

func (b *stream) close(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed == nil {
		b.closed = err
		b.tell()
	}
}

// tell wakes the reader, so that he looks again. The mutex is held.
func (b *stream) tell() {
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
}

// skip throws away what is here of a chunked body whose handler has returned
// before the answer's head was made: if the end is not here, nobody knows how
// much is still to come, and the head must say that the connection ends.
func (b *stream) skip() {
	if b.left.Load() >= 0 || !b.reading.TryLock() {
		return
	}
	defer b.reading.Unlock()
	b.data = nil
	s, sl := b.x.server, b.x.slot
	for b.err == nil && b.body.thrown <= discardLimit {
		if b.raw != nil && b.off < len(b.raw.B) {
			b.decode()
			b.body.thrown += int64(len(b.data))
			b.data = nil
			continue
		}
		target := b.emptyRaw()
		sl.ClearReadable()
		n, err := s.sockets.receive(sl.FD(), target)
		if err != nil || n == 0 {
			break // also what else than errWouldBlock: whoever is next finds it
		}
		if n == len(target) {
			sl.MarkReadable()
		}
		s.stats.bytesIn.Add(uint64(n))
		b.body.arrived += int64(n)
		b.raw.B = target[:n]
	}
	if b.err == nil {
		b.endless.Store(true)
	}
}

// spoils reports whether the connection cannot go on after the answer as it
// stands: the rest of the body is too long to be thrown away, or nobody knows
// whether it comes, or the handler's deadline says not to wait for it. Any
// goroutine.
func (b *stream) spoils() bool {
	if b.isLost() {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.left.Load() > 0 && b.overdue()
}

// isLost reports whether the end of the body, where the next request begins,
// will not be reached. Any goroutine.
func (b *stream) isLost() bool {
	return b.broken.Load() || b.wantsContinue.Load() || b.endless.Load() || b.left.Load() > discardLimit
}

// overdue reports whether the handler's own deadline has passed. The mutex is
// held.
func (b *stream) overdue() bool {
	return b.own && !b.deadline.IsZero() && !time.Now().Before(b.deadline)
}

// mayComplete reports, when the peer has shut down its side, whether the rest of
// the body can be on its way to the reader all the same. Any goroutine.
func (b *stream) mayComplete() bool {
	left := b.left.Load()
	if left == 0 || b.broken.Load() {
		return false
	}
	queued := b.x.server.sockets.unread(b.x.slot.FD())
	if left > 0 {
		return queued >= left
	}
	return queued+b.undecoded.Load() > 0
}

// end is called when the handler has returned, or takes over the connection:
// from here on nobody reads. It returns the content that nobody has read, and
// what was received behind it; neither after endStream.
func (b *stream) end(err error) (unread, behind []byte) {
	b.close(err)
	b.reading.Lock()
	defer b.reading.Unlock()
	if b.raw == nil {
		return nil, nil
	}
	return b.data, b.raw.B[b.off:]
}

// takeRaw takes the buffer from a body that has ended: a goroutine that the
// handler has left behind may still look for it (Hijack).
func (b *stream) takeRaw() *bytebufferpool.ByteBuffer {
	b.reading.Lock()
	defer b.reading.Unlock()
	raw := b.raw
	b.raw, b.data, b.off = nil, nil, 0
	return raw
}

// endStream ends a streamed body after its handler has returned. What follows
// it, and what of it is still to come, is left with the client. It reports
// whether the connection can go on.
func (s *Server) endStream(x *exchange) bool {
	b := x.streamed()
	_, behind := b.end(http.ErrBodyReadAfterClose)
	if raw := b.takeRaw(); raw != nil {
		defer putWhole(&readPool, raw)
	}
	if b.isLost() {
		return false
	}
	c, whole := x.client(), b.err == io.EOF
	if !whole {
		rest, done, err := b.body.discard(behind, &s.options.Limits)
		if err != nil {
			return false
		}
		behind, whole = rest, done
		b.body.thrown = 0 // the limit is on what is still to come, see spoils
	}
	if !whole {
		c.ensurePending().discarding = b.body
		return true
	}
	if len(behind) > 0 {
		p := c.ensurePending()
		p.in, p.off = inPool.Get(), 0
		p.in.B = append(p.in.B[:0], behind...)
	}
	return true
}

// badFraming notes a streamed body that is no body, and returns what its reader
// gets.
func (b *stream) badFraming(err error) error {
	s, x := b.x.server, b.x
	var bad *parser.Error
	if !errors.As(err, &bad) {
		return err
	}
	s.stats.parseErrors[bad.Reason].Add(1)
	s.log.warn(limitKey{event: bad.Reason.String(), peer: x.client().peer.ip}, "request body refused while the handler read it",
		"peer", x.request.RemoteAddr, "method", x.request.Method, "path", x.request.URL.Path, "reason", bad.Reason.String(), "detail", bad.Detail)
	if bad == errBodyTooLarge {
		return &http.MaxBytesError{Limit: s.options.Limits.Body}
	}
	return err
}
