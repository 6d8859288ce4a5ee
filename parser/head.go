package parser

import "math"

// Span is a piece buf[Start:End] of the buffer given to Parse. Only offsets are
// kept, because the caller may move the bytes between two calls.
type Span struct{ Start, End uint32 }

func span(start, end int) Span { return Span{uint32(start), uint32(end)} }

// In returns the bytes of buf that s stands for.
func (s Span) In(buf []byte) []byte { return buf[s.Start:s.End] }

// Len returns the number of bytes.
func (s Span) Len() int { return int(s.End - s.Start) }

// Field is one field line. Name is as the client spelled it, Value without the
// whitespace around it.
type Field struct {
	Name, Value Span
	Known       Known
}

// TargetForm is one of the four forms of a request target (RFC 9112 section 3.2).
type TargetForm uint8

// The forms of a request target.
const (
	OriginForm    TargetForm = iota // /path?query
	AbsoluteForm                    // scheme://host/path?query
	AuthorityForm                   // host:port, of CONNECT only, which may have an origin-form as well
	AsteriskForm                    // *, of OPTIONS, of methods unknown here, and of the preface of HTTP/2
)

// Head is the head of one request: what Parse has understood of it, and, until
// all of it has come, where Parse goes on. The zero value is ready; Reset makes
// it ready again. Until Parse has returned a nil error only Started says
// anything about the request.
type Head struct {
	Method, Target Span
	// Path and Query lie in Target; both are empty for CONNECT and for "*".
	// The path of an absolute-form target may be empty as well. The query
	// is without its '?': for "/?" it is empty, and the byte before it tells.
	Path, Query Span
	Host        Span // value of the Host field, which may be empty
	HasHost     bool
	Form        TargetForm
	// Major and Minor are the version: 1 and 0 to 9, of which 2 and more
	// mean the same as 1 (RFC 9110 section 2.5), or 2 and 0 for the preface
	// of HTTP/2, which has no fields.
	Major, Minor uint8
	// Fields has all field lines in their order, Host and those of the
	// framing included.
	Fields []Field
	// ContentLength is -1 without a Content-Length field. It is never set
	// together with Chunked; a request with neither has no body.
	ContentLength int64
	Chunked       bool // Transfer-Encoding is "chunked"
	// Close, KeepAlive and Upgrade: the Connection fields have that option.
	Close, KeepAlive, Upgrade bool
	// ExpectContinue: an Expect field has "100-continue", in HTTP/1.1.
	// ExpectOther: one has something else.
	ExpectContinue, ExpectOther bool

	trailer         bool // a trailer section: fields mean nothing here
	declaresTrailer bool // has a Trailer field
	state           headState
	known           Known  // of the name before an unfinished value
	pos             uint32 // bytes done with
	mark            uint32 // start of the unfinished element
	question, hash  uint32 // first '?' and first '#' of the target; 0 for none
	name            Span   // the name before an unfinished value
	failure         *Error // of stateFailed
}

// headState says what the byte at Head.pos belongs to.
type headState uint8

const (
	stateEmptyLines headState = iota // CRLFs before the request; at an odd pos, after a CR
	stateMethod                      // method or the SP after it
	stateTarget                      // target or the SP after it
	stateVersion                     // version or the CRLF after it
	stateRPC                         // second LF of a request of net/rpc
	statePreface                     // CR after the request line of HTTP/2's preface
	stateFieldStart                  // start of a field line, or CR of the last line
	stateFieldName                   // name or the colon after it
	stateFieldSpace                  // whitespace before a value
	stateFieldValue                  // value, whitespace or the CR after it
	stateFieldLF                     // LF after a value
	stateLastLF                      // LF of the last line
	stateDone                        // pos is the length of the head
	stateFailed                      // failure says why
)

const (
	// maxHead keeps offsets in a Span, whatever the limits.
	maxHead = math.MaxInt32
	// maxKeptFields is how many Fields a Head keeps room for, so that one
	// odd request does not hold memory for ever.
	maxKeptFields = 128
)

// Reset makes h ready for another request. It keeps the room of Fields, unless
// that has become larger than requests usually need.
func (h *Head) Reset() {
	fields := h.Fields[:0]
	if cap(fields) > maxKeptFields {
		fields = nil
	}
	*h = Head{Fields: fields}
}

// Started reports whether Parse has seen anything of a request: a byte other
// than those of tolerated empty lines. A connection on which it is false can be
// closed as an idle one.
func (h *Head) Started() bool { return h.state > stateEmptyLines }

// Parse reads a request head from the beginning of buf.
//
// A nil error means done: the head is buf[:n], with empty lines before it and
// the CRLF after it. ErrIncomplete means not yet: call again with the same
// bytes, moved or not, and more behind them; bytes already seen are not looked
// at again. An *Error means never, and comes with the first byte that settles
// it. With an error n is 0. Further calls after nil or *Error return the same
// again until Reset.
//
// Limits are those of WithDefaults; nil stands for all defaults.
func (h *Head) Parse(buf []byte, limits *Limits) (n int, err error) {
	if limits == nil {
		limits = &defaultLimits
	} else if !limits.complete {
		completed := limits.WithDefaults()
		limits = &completed
	}
	// The parser sees at most as much as the limit, so that reaching it is
	// an error at the same byte however the head was cut into pieces.
	room := limits.Head
	if uint(room) > maxHead {
		room = maxHead
	}
	seen := buf[:min(len(buf), room)]

	if (h.state >= stateFieldStart || h.parseRequestLine(seen, limits)) &&
		(h.state >= stateDone || h.parseFields(seen, limits)) &&
		h.state == stateDone {
		return int(h.pos), nil
	}
	if h.state != stateFailed {
		if len(buf) <= room {
			return 0, ErrIncomplete
		}
		if h.state <= stateVersion {
			h.fail(ReasonRequestLineTooLong, "")
		} else {
			h.fail(ReasonHeadTooLong, "")
		}
	}
	return 0, h.failure
}

// wait notes where to go on when there are more bytes. Like fail it returns
// false, for its callers to return.
func (h *Head) wait(state headState, pos, mark int) bool {
	h.state, h.pos, h.mark = state, uint32(pos), uint32(mark)
	return false
}

// fail ends the parsing for good. It is kept out of its many callers, which are
// all on the path of good requests.
//
//go:noinline
func (h *Head) fail(r Reason, detail string) bool {
	h.state, h.failure = stateFailed, newError(r, detail)
	return false
}
