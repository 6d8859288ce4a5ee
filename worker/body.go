package worker

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/catamount-server/catamount/parser"
	"github.com/valyala/bytebufferpool"
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

// bodyPool holds the memory of buffered bodies. A pool of its own, because
// bytebufferpool learns one typical size per pool.
var bodyPool bytebufferpool.Pool

// bodyKeep is the largest buffer worth keeping in a pool.
const bodyKeep = 256 << 10

// requestBody is the body of a buffered request: filled by the client's owner
// as bytes come, and read by the handler once it is whole. It is made for one
// request and not pooled (RoundTrip goroutines outlive handlers); its memory
// and its file are given back when the handler has returned.
type requestBody struct {
	mu     sync.Mutex
	memory *bytebufferpool.ByteBuffer
	file   *os.File
	size   int64 // bytes received, decoded
	offset int64 // bytes read by the handler
	closed bool
	err    error     // what reads return once the body is closed
	until  time.Time // SetReadDeadline
	late   bool      // a read came after that

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
// and whether the body ends there.
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
		return nil, nil, false, errBodyTooLarge
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
			err = b.store(data, options)
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

// store appends to memory, or to a file once the memory's limit is passed. A
// body whose length is known to be over it goes to the file from the start.
func (b *requestBody) store(p []byte, options *Options) error {
	if len(p) == 0 {
		return nil
	}
	if b.file == nil && b.size+int64(len(p))+max(b.remaining, 0) > int64(options.BodyMemory) {
		if err := b.spill(options); err != nil {
			return fmt.Errorf("%w: %w", errBodyStorage, err)
		}
	}
	if b.file != nil {
		if _, err := b.file.Write(p); err != nil {
			return fmt.Errorf("%w: %w", errBodyStorage, err)
		}
	} else {
		if b.memory == nil {
			b.memory = bodyPool.Get()
			// The announced size is believed only as far as bytes have come: a
			// thousand clients that announce much and send little must not
			// cost a thousand times much.
			if total := b.remaining + int64(len(p)); b.remaining > 0 && int64(cap(b.memory.B)) < total && total <= 4*int64(len(p)) {
				b.memory.B = make([]byte, 0, total)
			}
		}
		b.memory.Write(p)
	}
	b.size += int64(len(p))
	return nil
}

func (b *requestBody) spill(options *Options) error {
	file, err := bodyFile(options.bodyDirectory())
	if err != nil {
		return err
	}
	b.file = file
	if b.memory != nil {
		_, err = file.Write(b.memory.B)
		b.releaseMemory()
	}
	return err
}

func (b *requestBody) releaseMemory() {
	if b.memory != nil && cap(b.memory.B) <= bodyKeep {
		bodyPool.Put(b.memory)
	}
	b.memory = nil
}

// Read implements io.Reader.
func (b *requestBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, b.err
	}
	if !b.until.IsZero() && !time.Now().Before(b.until) {
		b.late = true
	}
	if b.late {
		return 0, os.ErrDeadlineExceeded // for good, as in net/http
	}
	if b.offset >= b.size {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	var n int
	if b.file != nil {
		var err error
		if n, err = b.file.ReadAt(p[:min(int64(len(p)), b.size-b.offset)], b.offset); n == 0 && err != nil {
			return 0, fmt.Errorf("reading a stored body: %w", err)
		}
	} else {
		n = copy(p, b.memory.B[b.offset:])
	}
	b.offset += int64(n)
	return n, nil
}

// Close makes later reads fail, as net/http's body does.
func (b *requestBody) Close() error {
	b.release(http.ErrBodyReadAfterClose)
	return nil
}

// release gives memory and file back. The handler may be reading in another
// goroutine at that moment; hence the lock.
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
	b.releaseMemory()
	if b.file != nil {
		b.file.Close() // unnamed: closing is what removes it
		b.file = nil
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
