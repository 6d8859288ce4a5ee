package parser

import (
	"bytes"
	"encoding/binary"
)

// maxEmptyLines is how many empty lines are tolerated before a request (RFC
// 9112 section 2.2: at least one). They cost the server a read each.
const maxEmptyLines = 4

// tlsHandshake is the first byte of a TLS connection: the content type of a
// record with a ClientHello (RFC 8446 section 5.1).
const tlsHandshake = 0x16

// parseRequestLine goes on up to the start of the first field line. It returns
// false when it could not: h.state is then stateFailed, or says where to go on.
func (h *Head) parseRequestLine(buf []byte, limits *Limits) bool {
	switch h.state {
	case stateEmptyLines:
		if !h.parseEmptyLines(buf) {
			return false
		}
		fallthrough
	case stateMethod:
		if !h.parseMethod(buf, limits) {
			return false
		}
		fallthrough
	case stateTarget:
		if !h.parseTarget(buf, limits) {
			return false
		}
		fallthrough
	case stateVersion:
		return h.parseVersion(buf) && (h.state != statePreface || h.parsePreface(buf))
	case stateRPC:
		return h.parseRPC(buf)
	case statePreface:
		return h.parsePreface(buf)
	}
	return true
}

func (h *Head) parseEmptyLines(buf []byte) bool {
	h.ContentLength = -1
	i := int(h.pos)
	for ; i < len(buf); i++ {
		switch c := buf[i]; {
		case i%2 == 1 && c != '\n':
			return h.fail(ReasonBareCR, "")
		case i%2 == 1:
		case c == '\r' && i == 2*maxEmptyLines:
			return h.fail(ReasonEmptyLines, "")
		case c == '\r':
		case c == tlsHandshake:
			return h.fail(ReasonTLSHello, "")
		default:
			h.pos, h.mark = uint32(i), uint32(i)
			return true
		}
	}
	return h.wait(stateEmptyLines, i, i)
}

func (h *Head) parseMethod(buf []byte, limits *Limits) bool {
	start := int(h.mark)
	end := indexNameEnd(buf, int(h.pos))
	if over(end-start, limits.Method) {
		return h.fail(ReasonMethodTooLong, "")
	}
	if end == len(buf) {
		return h.wait(stateMethod, end, start)
	}
	if c := buf[end]; c != ' ' || end == start {
		return h.failByte(c, ReasonBadMethod)
	}
	h.Method = span(start, end)
	h.pos, h.mark = uint32(end+1), uint32(end+1)
	return true
}

func (h *Head) parseTarget(buf []byte, limits *Limits) bool {
	i, start := int(h.pos), int(h.mark)
	for {
		i = indexTargetStop(buf, i)
		if over(i-start, limits.Target) {
			return h.fail(ReasonTargetTooLong, "")
		}
		if i == len(buf) {
			return h.wait(stateTarget, i, start)
		}
		switch c := buf[i]; c {
		case ' ':
			h.Target = span(start, i)
			h.pos, h.mark = uint32(i+1), uint32(i+1)
			return h.cutTarget(buf, limits)
		case '?':
			if h.question == 0 && h.hash == 0 {
				h.question = uint32(i)
			}
		case '#':
			if limits.Fragment == 0 {
				return h.fail(ReasonFragment, "")
			}
			if h.hash == 0 {
				h.hash = uint32(i)
			}
		case '!', '"': // stopped at for nothing
		default:
			return h.failByte(c, ReasonBadTarget)
		}
		i++
	}
}

// cutTarget finds the form of a whole target, its path and its query.
func (h *Head) cutTarget(buf []byte, limits *Limits) bool {
	path, end := h.Target.Start, h.Target.End
	if h.hash != 0 {
		if over(int(end-h.hash-1), limits.Fragment) {
			return h.fail(ReasonFragmentTooLong, "")
		}
		end = h.hash
	}
	pathEnd := end
	if h.question != 0 {
		pathEnd = h.question
		h.Query = Span{h.question + 1, end}
	}

	target := h.Target.In(buf)
	switch method := h.Method.In(buf); {
	case string(method) == "CONNECT" && !bytes.HasPrefix(target, []byte{'/'}): // a path is what net/rpc asks for; net/http serves it
		h.Form, path, pathEnd, h.Query = AuthorityForm, 0, 0, Span{}
		if !validAuthority(target) {
			return h.fail(ReasonBadTargetForm, "")
		}
	case len(target) > 0 && target[0] == '/':
		h.Form = OriginForm
	case string(target) == "*" && allowsAsterisk(method):
		h.Form, path, pathEnd = AsteriskForm, 0, 0
	default:
		h.Form = AbsoluteForm
		n := schemeAndAuthority(buf[path:pathEnd])
		if n < 0 {
			return h.fail(ReasonBadTargetForm, "")
		}
		path += uint32(n)
	}
	h.Path = Span{path, pathEnd}
	if over(h.Path.Len(), limits.Path) {
		return h.fail(ReasonPathTooLong, "")
	}
	if over(h.Query.Len(), limits.Query) {
		return h.fail(ReasonQueryTooLong, "")
	}
	return true
}

// schemeAndAuthority returns the length of what comes before the path of an
// absolute-form target, and -1 if target is none. The authority must be one
// that could stand in a Host field, which it takes the place of (RFC 9112
// section 3.2.2): not empty, and without user information, as RFC 9110 section
// 4.2 advises.
func schemeAndAuthority(target []byte) int {
	i := 0
	for i < len(target) && target[i] != ':' {
		if c := target[i]; !isLetter(c) && (i == 0 || !isDigit(c) && c != '+' && c != '-' && c != '.') {
			return -1
		}
		i++
	}
	if i == 0 || len(target) < i+3 || string(target[i:i+3]) != "://" {
		return -1
	}
	start := i + 3
	for i = start; i < len(target) && target[i] != '/'; i++ {
	}
	if i == start || !ValidHost(target[start:i]) {
		return -1
	}
	return i
}

// validAuthority reports whether target is what CONNECT wants: host and port
// (RFC 9112 section 3.2.3), with an IPv6 host in brackets.
func validAuthority(target []byte) bool {
	colon := bytes.LastIndexByte(target, ':')
	if colon <= 0 || !ValidHost(target) {
		return false
	}
	number, ok := parseDecimal(target[colon+1:])
	return ok && number <= 65535
}

// Version and line end of nearly every request, as words.
const (
	wordHTTP11 = 'H' | 'T'<<8 | 'T'<<16 | 'P'<<24 | '/'<<32 | '1'<<40 | '.'<<48 | '1'<<56
	wordCRLF   = '\r' | '\n'<<8
)

func (h *Head) parseVersion(buf []byte) bool {
	i, start := int(h.pos), int(h.mark)
	if rest := buf[i:]; i == start && len(rest) >= 10 && h.Form != AsteriskForm &&
		binary.LittleEndian.Uint64(rest) == wordHTTP11 && binary.LittleEndian.Uint16(rest[8:]) == wordCRLF {
		h.Major, h.Minor = 1, 1
		h.state, h.pos = stateFieldStart, uint32(i+10)
		return true
	}
	for ; i < len(buf); i++ {
		c := buf[i]
		ok := false
		switch at := i - start; at {
		case 0, 1, 2, 3, 4:
			ok = c == "HTTP/"[at]
		case 5:
			h.Major, ok = c-'0', isDigit(c)
		case 6:
			ok = c == '.'
		case 7:
			h.Minor, ok = c-'0', isDigit(c)
			if ok && !h.checkVersion(buf) {
				return false
			}
		case 8:
			if c == '\n' && h.isRPC(buf) {
				h.state, h.pos = stateRPC, uint32(i+1)
				return h.parseRPC(buf)
			}
			ok = c == '\r'
		case 9:
			if c != '\n' {
				return h.fail(ReasonBareCR, "")
			}
			h.state, h.pos = stateFieldStart, uint32(i+1)
			if h.Major == 2 {
				h.state = statePreface
			}
			return true
		}
		if !ok {
			return h.failByte(c, ReasonBadVersion)
		}
	}
	return h.wait(stateVersion, i, start)
}

// allowsAsterisk: the form is that of OPTIONS (RFC 9112 section 3.2.4). A method
// that the parser does not know may have a meaning for it too, and net/http
// passes it on; for the others a resource must be named.
func allowsAsterisk(method []byte) bool {
	switch string(method) {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT":
		return false
	}
	return true
}

// checkVersion decides on a version of the right form. "PRI * HTTP/2.0" is let
// through as a request of its own for handlers such as h2c's, but only as the
// very preface of HTTP/2 (RFC 9113 section 3.4).
func (h *Head) checkVersion(buf []byte) bool {
	preface := h.Form == AsteriskForm && string(h.Method.In(buf)) == "PRI"
	switch {
	case preface && h.Major == 2 && h.Minor == 0 && h.Method.Start == 0:
		return true
	case h.Major != 1:
		return h.fail(ReasonUnsupportedVersion, "")
	case preface:
		return h.fail(ReasonBadTargetForm, "")
	}
	return true
}

// parsePreface sees to it that no field follows the request line of HTTP/2's
// preface.
func (h *Head) parsePreface(buf []byte) bool {
	i := int(h.pos)
	if i == len(buf) {
		return h.wait(statePreface, i, i)
	}
	if buf[i] != '\r' {
		return h.fail(ReasonUnsupportedVersion, "")
	}
	h.state = stateFieldStart
	return true
}

// isRPC recognises the one request of net/rpc's client, which it ends with two
// bare LFs: "CONNECT /path HTTP/1.0\n\n". RFC 9112 section 2.2 leaves bare LF to
// the recipient; without fields and without a body there is nothing that two
// servers could understand in two ways.
func (h *Head) isRPC(buf []byte) bool {
	return h.Major == 1 && h.Minor == 0 && h.Form == OriginForm && string(h.Method.In(buf)) == "CONNECT"
}

// parseRPC sees to it that no field follows.
func (h *Head) parseRPC(buf []byte) bool {
	i := int(h.pos)
	if i == len(buf) {
		return h.wait(stateRPC, i, i)
	}
	if buf[i] != '\n' {
		return h.fail(ReasonBareLF, "")
	}
	h.state, h.pos = stateDone, uint32(i+1)
	h.ContentLength = -1
	return true
}

// failByte refuses c. An LF is reported as what it is, because a client that
// ends its lines with it is the likely cause.
func (h *Head) failByte(c byte, r Reason) bool {
	if c == '\n' {
		r = ReasonBareLF
	}
	return h.fail(r, "")
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
