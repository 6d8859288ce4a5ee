package worker

import (
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"github.com/catamount-server/catamount/parser"
	"github.com/catamount-server/catamount/threadpool"
)

const (
	// holdLimit is how many bytes of a body are held back before the head is
	// sent: an answer that ends within them gets a Content-Length, and many
	// small writes become few chunks. net/http holds 2048.
	holdLimit = 4096
	// sendThreshold is how many bytes gather before they are sent without
	// being asked for by Flush.
	sendThreshold = 16 << 10
	// directLimit is the size from which a handler's bytes are sent from where
	// they lie. Below it copying is as fast as a second iovec.
	directLimit = 8 << 10
)

var (
	// errFinished is returned to whoever writes after the handler returned.
	errFinished = errors.New("catamount: write to a response whose handler has returned")
)

// response is the http.ResponseWriter of one exchange. Its bytes go into the
// buffers of the pool place that serves it. The lock makes a late write, from a
// goroutine that outlives the handler, an error that reaches nobody.
type response struct {
	mu      sync.Mutex
	x       *exchange
	scratch *scratch // the place's buffers; nil before and after serving
	place   *threadpool.Place

	header http.Header
	rare   *rareParts

	status   int
	declared int64 // the handler's Content-Length; -1 without
	written  int64 // body bytes that the handler wrote
	deadline int64 // when the answer must have been sent, on the reactor's clock; 0: no matter

	frozen       uint16 // fields in the header when it was frozen
	isHead       bool
	atLeast11    bool
	asked        bool // the client announced that this is its last request
	closeAfter   bool // no further request on this connection
	wroteHeader  bool // the header is frozen, its fields are in the output
	begun        bool // part of the answer may have been sent
	composed     bool // the head is complete, body bytes may follow
	noBody       bool // by its status the answer has no body
	chunked      bool
	cut          bool // the answer must not look complete: panic, or too short
	hijacked     bool
	finished     bool
	userType     bool // the handler decides on Content-Type, be it by nil
	userEncoding bool // a Content-Encoding or Transfer-Encoding: no sniffing
	userDate     bool
	userAlive    bool // the handler wrote Keep-Alive
	userCoding   bool // Transfer-Encoding: chunked or another, not identity
	noLength     bool // no Content-Length is to be worked out
	prefixed     bool // the header has fields with http.TrailerPrefix
	afterFile    bool // what comes next follows a file that the handler has copied
	identity     bool // Transfer-Encoding: identity: ended by closing
	untilClose   bool // only the end of the connection ends the answer

	err error // the first failure to write; every later Write returns it
}

// rareParts is what few responses have.
type rareParts struct {
	trailers   []string      // keys declared by the Trailer field, canonical
	connection []string      // the handler's Connection field
	codings    []string      // of the handler's Transfer-Encoding, but chunked
	limit      *handlerLimit // nil without HandlerTimeout
	exceeded   bool          // the handler has written more than it had declared
}

func (w *response) rareParts() *rareParts {
	if w.rare == nil {
		w.rare = new(rareParts)
	}
	return w.rare
}

func (w *response) init(x *exchange, head *parser.Head) {
	w.x = x
	w.declared = -1
	w.isHead = x.request.Method == http.MethodHead
	w.atLeast11 = head.Major > 1 || head.Minor >= 1
	w.asked = x.request.Close
	w.closeAfter = w.asked
}

// Header implements http.ResponseWriter. A goroutine that the handler has left
// behind may call it while the answer is completed: hence the lock.
func (w *response) Header() http.Header {
	w.mu.Lock()
	header := w.header
	if header == nil {
		header = make(http.Header)
		w.header = header
	}
	w.mu.Unlock()
	return header
}

// WriteHeader implements http.ResponseWriter. Codes from 100 to 199, except
// 101, are sent at once and may be repeated.
func (w *response) WriteHeader(status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writeHeader(status)
}

func (w *response) writeHeader(status int) {
	switch {
	case w.hijacked:
		w.logCaller("WriteHeader on a hijacked connection")
		return
	case w.finished || w.timedOut():
		return
	case w.wroteHeader:
		w.logCaller("superfluous WriteHeader")
		return
	case status < 100 || status > 999:
		// As net/http: an impossible code is a bug of the handler, and says so.
		panic(fmt.Sprintf("invalid WriteHeader code %v", status))
	case status < 200 && status != http.StatusSwitchingProtocols:
		w.writeInformational(status)
		return
	}
	w.wroteHeader = true
	w.status = status
	w.noBody = !bodyAllowed(status)
	w.startHead()
}

// bodyAllowed: RFC 9110 sections 15.2, 15.3.5 and 15.4.5.
func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

func (w *response) readLength(values []string) {
	if len(values) == 0 || values[0] == "" {
		return
	}
	n, err := strconv.ParseInt(values[0], 10, 64)
	if err != nil || n < 0 {
		w.x.server.log.warn(limitKey{event: "bad length"}, "handler set an invalid Content-Length", "value", values[0])
		return
	}
	w.declared = n
}

// Write implements http.ResponseWriter.
func (w *response) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.beforeBody(len(p)); err != nil || len(p) == 0 {
		return 0, err
	}
	if !w.composed {
		if len(w.scratch.hold)+len(p) <= holdLimit {
			w.scratch.hold = append(w.scratch.hold, p...)
			return len(p), nil
		}
		w.compose(false, p)
	}
	if err := w.body(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteString implements io.StringWriter.
func (w *response) WriteString(s string) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.beforeBody(len(s)); err != nil || len(s) == 0 {
		return 0, err
	}
	if !w.composed && len(w.scratch.hold)+len(s) <= holdLimit {
		w.scratch.hold = append(w.scratch.hold, s...)
		return len(s), nil
	}
	p := unsafe.Slice(unsafe.StringData(s), len(s)) // only read, as io.Writer demands
	if !w.composed {
		w.compose(false, p)
	}
	if err := w.body(p); err != nil {
		return 0, err
	}
	return len(s), nil
}

// beforeBody does what comes before n bytes of body can be taken.
func (w *response) beforeBody(n int) error {
	switch {
	case w.hijacked:
		if n > 0 {
			w.logCaller("Write on a hijacked connection")
		}
		return http.ErrHijacked
	case w.finished:
		return errFinished
	case w.err != nil:
		return w.err
	}
	if !w.wroteHeader {
		w.writeHeader(http.StatusOK)
	}
	if n == 0 {
		return nil
	}
	if w.noBody {
		return http.ErrBodyNotAllowed
	}
	if w.declared >= 0 && !w.userCoding && !w.fits(int64(n)) {
		w.rareParts().exceeded = true
		return http.ErrContentLength
	}
	w.written += int64(n)
	return nil
}

// fits reports whether n more bytes are no more than was declared. Nothing fits
// behind a Write that did not: the answer would look whole without that piece
// (net/http counts what it refuses).
func (w *response) fits(n int64) bool {
	return w.written+n <= w.declared && (w.rare == nil || !w.rare.exceeded)
}

// body takes bytes of the body once the head is complete. Chunks are not made
// smaller than holdLimit unless somebody flushes.
func (w *response) body(p []byte) error {
	if w.isHead {
		return nil
	}
	sc := w.scratch
	if w.afterFile {
		w.afterFile = false
		if err := w.x.server.sendBefore(w); err != nil {
			return err
		}
	}
	if w.chunked && len(sc.hold)+len(p) < holdLimit {
		sc.hold = append(sc.hold, p...)
		return nil
	}
	if w.chunked {
		sc.cur.B = appendChunkHead(sc.cur.B, len(sc.hold)+len(p))
	}
	sc.cur.B = append(sc.cur.B, sc.hold...)
	sc.hold = sc.hold[:0]
	var err error
	if len(p) >= directLimit {
		err = w.x.server.sendWhileServing(w, p)
	} else {
		sc.cur.B = append(sc.cur.B, p...)
	}
	if w.chunked {
		sc.cur.B = append(sc.cur.B, "\r\n"...) // another buffer, perhaps, than before
	}
	if err == nil && len(sc.cur.B) >= sendThreshold {
		err = w.x.server.sendWhileServing(w, nil)
	}
	return err
}

// appendChunkHead appends the size line of a chunk.
func appendChunkHead(b []byte, n int) []byte {
	b = strconv.AppendUint(b, uint64(n), 16)
	return append(b, "\r\n"...)
}

// Flush implements http.Flusher.
func (w *response) Flush() { _ = w.FlushError() }

// FlushError sends what has been written so far, and waits until the socket
// has taken it. http.ResponseController uses it.
func (w *response) FlushError() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.beforeBody(0); err != nil {
		return err
	}
	if !w.composed {
		w.compose(false, nil)
	}
	w.emitHeld()
	return w.x.server.sendAll(w)
}

// emitHeld moves the body bytes held back to the output.
func (w *response) emitHeld() {
	sc := w.scratch
	if len(sc.hold) == 0 {
		return
	}
	if !w.isHead {
		if w.chunked {
			sc.cur.B = appendChunkHead(sc.cur.B, len(sc.hold))
		}
		sc.cur.B = append(sc.cur.B, sc.hold...)
		if w.chunked {
			sc.cur.B = append(sc.cur.B, "\r\n"...)
		}
	}
	sc.hold = sc.hold[:0]
}

// finish completes the answer after the handler has returned. The bytes are in
// the output then; sending them is the caller's. From here on the handler's
// goroutines can do nothing to it.
func (w *response) finish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.end()
	if w.hijacked || w.timedOut() {
		return
	}
	if w.cut && !w.composed {
		// Nothing of it was sent: nothing will be, the connection just ends.
		w.scratch.cur.B = w.scratch.cur.B[:0]
		return
	}
	if !w.wroteHeader {
		w.writeHeader(http.StatusOK)
	}
	if !w.composed {
		if b := w.x.streamed(); b != nil {
			b.skip()
		}
		w.compose(true, nil)
	}
	w.emitHeld()
	if w.declared >= 0 && !w.userCoding && !w.isHead && !w.noBody && w.written < w.declared {
		// Fewer bytes than announced: only closing tells the client.
		w.cut, w.closeAfter = true, true
	}
	if w.chunked && !w.cut {
		w.appendLastChunk()
	}
}

func (w *response) end() {
	w.finished = true
	w.scratch = nil
}

// appendLastChunk ends a chunked body, with the trailers that the handler
// declared beforehand or named by http.TrailerPrefix.
func (w *response) appendLastChunk() {
	b := append(w.scratch.cur.B, "0\r\n"...)
	if w.rare != nil {
		for _, key := range w.rare.trailers {
			for _, value := range w.header[key] {
				b = w.x.server.appendField(b, key, value)
			}
		}
	}
	for key, values := range w.header {
		name, ok := strings.CutPrefix(key, http.TrailerPrefix)
		if !ok {
			continue
		}
		name = http.CanonicalHeaderKey(name)
		for _, value := range values {
			if !mayBeTrailer(name) {
				w.x.server.dropField(name, value)
				continue
			}
			b = w.x.server.appendField(b, name, value)
		}
	}
	w.scratch.cur.B = append(b, "\r\n"...)
}

// logCaller tells of a handler's mistake with the place in its code.
func (w *response) logCaller(what string) {
	var frame runtime.Frame
	callers := make([]uintptr, 16)
	frames := runtime.CallersFrames(callers[:runtime.Callers(3, callers)])
	for {
		var more bool
		frame, more = frames.Next()
		if !strings.Contains(frame.Function, "/worker.(*response)") || !more {
			break
		}
	}
	at := fmt.Sprintf("%s:%d", frame.File, frame.Line)
	w.x.server.log.warn(limitKey{event: what, detail: at}, what, "at", at, "in", frame.Function)
}
