package worker

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/catamount-server/catamount/parser"
)

var (
	// errBodyTooLarge: a chunked body passed the limit while it came.
	errBodyTooLarge = &parser.Error{Status: http.StatusRequestEntityTooLarge, Reason: parser.ReasonBodyTooLarge}
	// errBodyStorage: the body could not be kept (full disk, no descriptor).
	errBodyStorage = errors.New("cannot store the request body")
	// errUnreadBody: what a handler left of its body is too much to be thrown
	// away, or no body.
	errUnreadBody = errors.New("catamount: the rest of the request body cannot be skipped")
)

// requestBody is the body of a buffered request: filled by the client's owner
// as bytes come, and read by the handler once it is whole. It is made for one
// request and not pooled (RoundTrip goroutines outlive handlers); its memory
// and its file are given back when the handler has returned.
type requestBody struct {
	mu       sync.Mutex
	stored         // the content, see store
	offset   int64 // bytes read by the handler
	closed   bool
	borrowed int       // pieces of memory that WriteTo's writers have
	err      error     // what reads return once the body is closed
	until    time.Time // SetReadDeadline
	late     bool      // a read came after that

	// Filling.
	remaining int64 // of a Content-Length; -1: chunked
	chunked   parser.ChunkedDecoder
	arrived   int64 // raw bytes, framing included
	pace      pace  // of a buffered body
	// expectContinue: the client waits for 100 Continue before it sends.
	expectContinue bool
	decoded        int64 // of a chunked body
	thrown         int64 // see discard

	stream *stream // nil: the handler starts when the body is whole
}

// decode returns the first run of content in p, a part of it, what of p follows,
// and whether the body ends there. A body that is too large ends at the limit: a
// reader gets as much of it as of one that comes byte by byte.
func (b *requestBody) decode(p []byte, limits *parser.Limits) (data, rest []byte, whole bool, err error) {
	if b.remaining >= 0 {
		n := min(int64(len(p)), b.remaining)
		b.remaining -= n
		return p[:n], p[n:], b.remaining == 0, nil
	}
	data, n, err := b.chunked.Decode(p, limits)
	b.decoded += int64(len(data))
	switch {
	case err == io.EOF:
		return nil, p[n:], true, nil
	case err == parser.ErrIncomplete:
		return nil, nil, false, nil
	case err != nil:
		return nil, nil, false, err
	case limits.Body > 0 && b.decoded > limits.Body:
		beyond := min(b.decoded-limits.Body, int64(len(data)))
		return data[:int64(len(data))-beyond], nil, false, errBodyTooLarge
	}
	return data, p[n:], false, nil
}

// fill takes what is there of the body from p and returns the rest of p, and
// whether the body is whole.
func (b *requestBody) fill(p []byte, options *Options) (rest []byte, whole bool, err error) {
	b.arrived += int64(len(p))
	for {
		data, rest, whole, err := b.decode(p, &options.Limits)
		if err == nil {
			err = b.store(data, max(b.remaining, 0), options)
		}
		if whole {
			b.arrived -= int64(len(rest))
		}
		if err != nil || whole || len(rest) == 0 {
			return rest, whole, err
		}
		p = rest
	}
}

// discard is fill for a body that nobody reads any more. Its errors mean that
// the connection cannot go on; the request has been answered, so nobody else
// wants to know.
func (b *requestBody) discard(p []byte, limits *parser.Limits) (rest []byte, whole bool, err error) {
	b.thrown += int64(len(p))
	for {
		_, rest, whole, err := b.decode(p, limits)
		if whole {
			b.thrown -= int64(len(rest))
		}
		switch {
		case err != nil || b.thrown > discardLimit:
			return nil, false, errUnreadBody
		case whole || len(rest) == 0:
			return rest, whole, nil
		}
		p = rest
	}
}

// Read implements io.Reader.
func (b *requestBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.refusal(); err != nil {
		return 0, err
	}
	n, err := b.readAt(p, b.offset)
	b.offset += int64(n)
	return n, err
}

// refusal is why nothing can be read: the body is closed, its deadline has
// passed, or all of it has been read. The mutex is held.
func (b *requestBody) refusal() error {
	if b.closed {
		return b.err
	}
	if !b.until.IsZero() && !time.Now().Before(b.until) {
		b.late = true
	}
	if b.late {
		return os.ErrDeadlineExceeded // for good, as in net/http
	}
	if b.offset >= b.size {
		return io.EOF
	}
	return nil
}

// WriteTo implements io.WriterTo: io.Copy passes on what is in memory from where
// it lies. The writer may take its time, also beyond the end of the handler; so
// nothing is locked meanwhile, and what it has is not given back before.
func (b *requestBody) WriteTo(w io.Writer) (int64, error) {
	for written := int64(0); ; {
		piece, err := b.borrow()
		switch {
		case err == io.EOF:
			return written, nil
		case err != nil:
			return written, err
		case piece == nil: // the rest is in the file
			n, err := io.Copy(w, readerOnly{b})
			return written + n, err
		}
		n, err := b.show(w, piece)
		written += int64(n)
		if err != nil {
			return written, err
		}
	}
}

// borrow counts the next piece in memory as read, and keeps it from being given
// back. It returns none where the file begins.
func (b *requestBody) borrow() ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.refusal(); err != nil {
		return nil, err
	}
	piece := b.piece(b.offset)
	if piece != nil {
		b.offset += int64(len(piece))
		b.borrowed++
	}
	return piece, nil
}

// show gives a borrowed piece to w. A w that panics has it no more either.
func (b *requestBody) show(w io.Writer, piece []byte) (n int, err error) {
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.borrowed--; b.closed && b.borrowed == 0 {
			b.drop()
		}
	}()
	if n, err = w.Write(piece); n < len(piece) && err == nil {
		err = io.ErrShortWrite
	}
	return n, err
}

// Close makes later reads fail, as net/http's body does.
func (b *requestBody) Close() error {
	b.release(http.ErrBodyReadAfterClose)
	return nil
}

// release gives memory and file back; once and for all, whoever comes first of
// those who may end a body. The handler may be reading in another goroutine at
// that moment; hence the lock.
func (b *requestBody) release(err error) {
	if b.stream != nil {
		b.stream.close(err)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	b.closed, b.err = true, err
	if b.borrowed == 0 {
		b.drop()
	}
}

// setReadDeadline makes reads fail with os.ErrDeadlineExceeded from then on; a
// zero time removes it.
func (b *requestBody) setReadDeadline(deadline time.Time) {
	if b.stream != nil {
		b.stream.setDeadline(deadline)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.until = deadline
}
