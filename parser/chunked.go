package parser

import (
	"io"
	"math"
)

// TrailerField is one field line of a trailer section. Name is as the client
// spelled it. Both strings are the caller's to keep.
type TrailerField struct{ Name, Value string }

// ChunkedDecoder takes the chunked transfer coding off a body (RFC 9112 section
// 7.1). The zero value is ready for a body; Reset makes it ready for another.
//
// Extensions are checked and skipped. What they, and the chunk lines as such,
// may cost is limited, because a client can otherwise make the server read
// without end for hardly a byte of data: of each chunk, what its line and the
// CRLF after its data have beyond 16 bytes and twice the data counts as excess,
// less what earlier chunks stayed under it, and the sum must not go over
// Limits.ChunkExcess. So a client that sends honest chunks of one byte passes.
// The rule is that of net/http/internal/chunked.go.
type ChunkedDecoder struct {
	state    chunkState
	ext      extensionState // of chunkExtension
	line     int            // bytes of the chunk line so far
	size     int64          // of the chunk, then what is left of it
	excess   int64
	trailer  *trailerSection // nil until there is a field in it
	trailers []TrailerField
	failure  *Error // of chunkFailed
}

// chunkState says what the next byte belongs to.
type chunkState uint8

const (
	chunkSize      chunkState = iota // digits, or what ends them
	chunkExtension                   // extensions or the CR after them
	chunkLineLF                      // LF of a chunk line
	chunkData                        // data
	chunkDataCR                      // CR after data
	chunkDataLF                      // LF after data
	chunkTrailer                     // trailer section, or the CR that ends it
	chunkTrailerLF                   // LF of a trailer section without fields
	chunkDone
	chunkFailed
)

const (
	// maxChunkDigits is that of net/http: leading zeros are no reason to
	// read on.
	maxChunkDigits = 16
	// Overhead of a chunk that is taken to be honest.
	freeChunkOverhead = 16
	freeDataMultiple  = 2
)

// Reset makes d ready for another body.
func (d *ChunkedDecoder) Reset() { *d = ChunkedDecoder{} }

// Decode makes one step: it consumes src[:n], and data is the run of payload in
// it, a part of src.
//
// With a nil error data is not empty; call again with src[n:], when there is
// any. ErrIncomplete: all of src is consumed without reaching payload or the
// end; call again with the bytes that follow. io.EOF: the body ended with
// src[:n], and src[n:], which was not looked at, is the next request. *Error:
// the body is malformed, and n is 0. Further calls after io.EOF or *Error
// return the same again until Reset.
//
// Limits are those of WithDefaults; nil stands for all defaults.
func (d *ChunkedDecoder) Decode(src []byte, limits *Limits) (data []byte, n int, err error) {
	if limits == nil {
		limits = &defaultLimits
	} else if !limits.complete {
		completed := limits.WithDefaults()
		limits = &completed
	}
	i := 0
	for i < len(src) && d.state < chunkTrailer {
		c := src[i]
		switch d.state {
		case chunkSize, chunkExtension, chunkLineLF:
			var ok bool
			if i, ok = d.parseLine(src, i, limits); !ok {
				return nil, 0, d.failure
			}
		case chunkData:
			end := len(src)
			if int64(end-i) >= d.size {
				end = i + int(d.size)
				d.state = chunkDataCR
			}
			d.size -= int64(end - i)
			return src[i:end:end], end, nil
		case chunkDataCR:
			if c != '\r' {
				return nil, 0, d.failByte(c, ReasonBadChunkEnd)
			}
			d.state = chunkDataLF
			i++
		case chunkDataLF:
			if c != '\n' {
				return nil, 0, d.fail(ReasonBadChunkEnd)
			}
			d.state = chunkSize
			i++
		}
	}
	switch {
	case d.state == chunkFailed:
		return nil, 0, d.failure
	case d.state >= chunkTrailer:
		n, err := d.parseTrailer(src[i:], limits)
		if err != nil && err != ErrIncomplete && err != io.EOF {
			return nil, 0, err
		}
		return nil, i + n, err
	}
	return nil, i, ErrIncomplete
}

// Trailers returns the trailer fields, in their order, once Decode has returned
// io.EOF. They are checked like header fields. Those that RFC 9110 section
// 6.5.1 forbids there, because framing, routing, authentication or the meaning
// of the body depend on them, are left out: a handler may merge trailers into
// the header, and by then nobody would check them.
func (d *ChunkedDecoder) Trailers() []TrailerField { return d.trailers }

// parseLine goes on with a chunk line from src[i], and returns where it stopped:
// behind the line or at the end of src.
func (d *ChunkedDecoder) parseLine(src []byte, i int, limits *Limits) (int, bool) {
	if d.state == chunkSize {
		for ; i < len(src); i++ {
			digit := hexDigit(src[i])
			if digit < 0 {
				break
			}
			if d.line == maxChunkDigits || d.size > math.MaxInt64>>4 {
				d.fail(ReasonChunkSizeOverflow)
				return i, false
			}
			d.line++
			if over(d.line, limits.ChunkLine) {
				d.fail(ReasonChunkLineTooLong)
				return i, false
			}
			d.size = d.size<<4 | int64(digit)
		}
		if i == len(src) {
			return i, true
		}
		switch c := src[i]; {
		case d.line > 0 && c == '\r':
			d.state = chunkLineLF
			i++
		case d.line > 0 && c == ';': // no space before it: net/http and llhttp refuse that too
			d.state, d.ext = chunkExtension, extensionGap
		default:
			d.failByte(c, ReasonBadChunkSize)
			return i, false
		}
	}
	if d.state == chunkExtension {
		for ; i < len(src) && charSets[src[i]]&valueChar != 0; i++ {
			d.line++
			if over(d.line, limits.ChunkLine) {
				d.fail(ReasonChunkLineTooLong)
				return i, false
			}
			var ok bool
			if d.ext, ok = d.ext.next(src[i]); !ok {
				d.fail(ReasonBadChunkExtension)
				return i, false
			}
		}
		if i == len(src) {
			return i, true
		}
		if src[i] != '\r' || !d.ext.mayEnd() {
			d.failByte(src[i], ReasonBadChunkExtension)
			return i, false
		}
		d.state = chunkLineLF
		i++
	}
	if i == len(src) {
		return i, true
	}
	if src[i] != '\n' {
		d.fail(ReasonBareCR)
		return i, false
	}
	return i + 1, d.beginChunk(limits)
}

// beginChunk does what a whole chunk line asks for.
func (d *ChunkedDecoder) beginChunk(limits *Limits) bool {
	const crlf = 2
	d.excess += int64(d.line) + crlf - freeChunkOverhead
	if d.size > math.MaxInt64/(2*freeDataMultiple) {
		d.excess = 0
	} else {
		d.excess = max(0, d.excess-freeDataMultiple*d.size)
	}
	if limits.ChunkExcess >= 0 && d.excess > int64(limits.ChunkExcess) {
		d.fail(ReasonChunkExcess)
		return false
	}
	d.line = 0
	d.state = chunkData
	if d.size == 0 {
		d.state = chunkTrailer
	}
	return true
}

func (d *ChunkedDecoder) fail(r Reason) *Error {
	d.state, d.failure = chunkFailed, newError(r, "")
	return d.failure
}

func (d *ChunkedDecoder) failByte(c byte, r Reason) *Error {
	if c == '\n' {
		r = ReasonBareLF
	}
	return d.fail(r)
}

// hexDigit returns the value of a hexadecimal digit, -1 for any other byte.
func hexDigit(c byte) int {
	switch {
	case isDigit(c):
		return int(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}
