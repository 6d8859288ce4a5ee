package parser

import "math"

// Values looked for.
var (
	tokenChunked   = newFoldedToken("chunked")
	tokenClose     = newFoldedToken("close")
	tokenContinue  = newFoldedToken("100-continue")
	tokenKeepAlive = newFoldedToken("keep-alive")
	tokenUpgrade   = newFoldedToken("upgrade")
)

// foldedToken is a token of at most 16 lower-case letters, digits and '-', to
// be recognised in any case.
type foldedToken struct {
	first, last uint64
	length      int
}

func newFoldedToken(lower string) foldedToken {
	first, last := endWords([]byte(lower))
	return foldedToken{first, last, len(lower)}
}

func (t *foldedToken) is(value []byte) bool {
	if len(value) != t.length {
		return false
	}
	first, last := endWords(value)
	return sameWord(first, t.first) && sameWord(last, t.last)
}

// examine takes in the value buf[start:end] of a field on which framing,
// routing or the connection depends.
func (h *Head) examine(known Known, buf []byte, start, end int) bool {
	if h.trailer {
		return true
	}
	value := buf[start:end]
	switch known {
	case KnownHost:
		return h.examineHost(value, span(start, end))
	case KnownContentLength:
		return h.examineContentLength(value)
	case KnownTransferEncoding:
		return h.examineTransferEncoding(value)
	case KnownConnection:
		h.examineConnection(value)
	case KnownExpect:
		h.examineExpect(value)
	case KnownTrailer:
		h.declaresTrailer = true
	}
	return true
}

// examineHost refuses a second Host: whoever stands before us may have chosen
// the other one (RFC 9112 section 3.2). An IPv6 address without its brackets is
// taken, because net/http takes it and it is nothing else.
func (h *Head) examineHost(value []byte, at Span) bool {
	if h.HasHost {
		return h.fail(ReasonRepeatedHost, "Host")
	}
	if !ValidHost(value) && !isIPv6(value) {
		return h.fail(ReasonBadHost, "Host")
	}
	h.Host, h.HasHost = at, true
	return true
}

// examineContentLength takes exactly one number. Any other form, also those
// that RFC 9110 section 8.6 would let us repair, has been a way to make two
// servers disagree on where a request ends.
func (h *Head) examineContentLength(value []byte) bool {
	if h.ContentLength >= 0 {
		return h.fail(ReasonRepeatedContentLength, "Content-Length")
	}
	if h.Chunked {
		return h.fail(ReasonLengthAndTransferEncoding, "Content-Length")
	}
	length, ok := parseDecimal(value)
	if !ok {
		return h.fail(ReasonBadContentLength, "Content-Length")
	}
	h.ContentLength = length
	return true
}

// examineTransferEncoding takes "chunked" and nothing else. RFC 9112 section
// 6.1 would let us read a body that has a Content-Length too, or comes from
// HTTP/1.0; both are how requests are smuggled. Codings that we do not know are
// 501, but behind chunked nothing may come at all (section 6.3): 400.
func (h *Head) examineTransferEncoding(value []byte) bool {
	const name = "Transfer-Encoding"
	switch {
	case h.Minor == 0:
		return h.fail(ReasonTransferEncodingVersion, name)
	case h.ContentLength >= 0:
		return h.fail(ReasonLengthAndTransferEncoding, name)
	case h.Chunked:
		return h.fail(ReasonBadTransferEncoding, name)
	}
	chunked, other := 0, 0
	empty, chunkedLast := false, false
	for start := 0; start <= len(value); {
		end := indexComma(value, start)
		from, to := trimOWS(value, start, end)
		switch {
		case from == to:
			empty = true
		case tokenChunked.is(value[from:to]):
			chunked++
			chunkedLast = true
		default:
			other++
			chunkedLast = false
		}
		start = end + 1
	}
	switch {
	case empty, chunked > 1, chunked == 1 && !chunkedLast:
		return h.fail(ReasonBadTransferEncoding, name)
	case other > 0:
		return h.fail(ReasonUnsupportedTransferEncoding, name)
	}
	h.Chunked = true
	return true
}

func (h *Head) examineConnection(value []byte) {
	if tokenKeepAlive.is(value) { // by far the most usual value
		h.KeepAlive = true
		return
	}
	for start := 0; start < len(value); {
		end := indexComma(value, start)
		from, to := trimOWS(value, start, end)
		option := value[from:to]
		h.Close = h.Close || tokenClose.is(option)
		h.KeepAlive = h.KeepAlive || tokenKeepAlive.is(option)
		h.Upgrade = h.Upgrade || tokenUpgrade.is(option)
		start = end + 1
	}
}

// examineExpect takes a list, as which somebody before us may have sent several
// fields on.
func (h *Head) examineExpect(value []byte) {
	for start := 0; start < len(value); {
		end := indexComma(value, start)
		from, to := trimOWS(value, start, end)
		switch {
		case tokenContinue.is(value[from:to]):
			// HTTP/1.0 does not know it (RFC 9110 section 10.1.1).
			h.ExpectContinue = h.ExpectContinue || h.Minor > 0
		case from < to:
			h.ExpectOther = true
		}
		start = end + 1
	}
}

// finish checks what can only be known once all fields are.
func (h *Head) finish(buf []byte, limits *Limits) bool {
	h.state = stateDone
	if h.trailer {
		return true
	}
	if !h.HasHost && h.Major == 1 && h.Minor > 0 && h.Form != AuthorityForm {
		return h.fail(ReasonMissingHost, "")
	}
	if h.declaresTrailer && h.Chunked && !h.validTrailer(buf) {
		return h.fail(ReasonBadTrailer, "Trailer")
	}
	if limits.Body >= 0 && h.ContentLength > limits.Body {
		return h.fail(ReasonBodyTooLarge, "")
	}
	return true
}

// validTrailer reports whether the Trailer fields leave the framing alone. A
// client that announces it for the trailer section is up to no good; net/http
// refuses the same three.
func (h *Head) validTrailer(buf []byte) bool {
	for _, field := range h.Fields {
		if field.Known != KnownTrailer {
			continue
		}
		value := field.Value.In(buf)
		for start := 0; start < len(value); {
			end := indexComma(value, start)
			from, to := trimOWS(value, start, end)
			switch lookupKnown(value[from:to]) {
			case KnownContentLength, KnownTransferEncoding, KnownTrailer:
				return false
			}
			start = end + 1
		}
	}
	return true
}

// indexComma returns the index at or after i of the first ',' of value,
// len(value) if there is none.
func indexComma(value []byte, i int) int {
	for i < len(value) && value[i] != ',' {
		i++
	}
	return i
}

// parseDecimal returns the number that digits are, and whether they are one
// below 2^63, with no other byte.
func parseDecimal(digits []byte) (int64, bool) {
	var n int64
	for _, c := range digits {
		if !isDigit(c) || n > math.MaxInt64/10 {
			return 0, false
		}
		n = n*10 + int64(c-'0')
		if n < 0 {
			return 0, false
		}
	}
	return n, len(digits) > 0
}
