package worker

import (
	"net/http"
	"net/textproto"
	"slices"
	"strings"
)

// What the handler's own fields mean for the framing of its answer.

// notice takes up what a field of the handler's means for the framing, and
// reports whether the field is sent as it stands.
func (w *response) notice(key string, values []string) (send bool) {
	switch key {
	case "Content-Type":
		w.userType = true
		return w.status != http.StatusNotModified
	case "Content-Length":
		w.readLength(values)
		w.noLength = w.noLength || len(values) == 0 || values[0] == "" // set to nil: not wanted
		return false                                                   // compose writes it
	case "Content-Encoding":
		w.userEncoding = w.userEncoding || len(values) > 0 && values[0] != ""
	case "Transfer-Encoding":
		w.readCoding(values)
		return false // compose writes it
	case "Date":
		w.userDate = true
	case "Connection":
		for _, value := range values {
			if hasToken(value, "close") {
				w.closeAfter = true
			}
		}
		if rare := w.rareParts(); len(rare.connection) == 0 {
			rare.connection = values
		} else { // spelled in two ways
			rare.connection = append(slices.Clip(rare.connection), values...)
		}
		return false // compose writes it
	case "Keep-Alive":
		w.userAlive = true
	case "Trailer":
		for _, value := range values {
			for name := range strings.SplitSeq(value, ",") {
				name = http.CanonicalHeaderKey(strings.TrimSpace(name))
				if rare := w.rareParts(); name != "" && mayBeTrailer(name) && !slices.Contains(rare.trailers, name) {
					rare.trailers = append(rare.trailers, name)
				}
			}
		}
	default:
		if name := framingName(key); name != "" {
			return w.notice(name, values)
		}
	}
	if strings.HasPrefix(key, http.TrailerPrefix) {
		w.prefixed = true
		return false
	}
	return true
}

// framingName returns the canonical name of a field that frames an answer, but
// is spelled otherwise in the handler's map. Sent as it stands beside the server's own, it
// would tell the client, or a proxy between, of another end (RFC 9112 section 11.2).
func framingName(key string) string {
	for _, name := range [...]string{"Connection", "Content-Length", "Transfer-Encoding"} {
		if len(key) == len(name) && strings.EqualFold(key, name) {
			return name
		}
	}
	return ""
}

// readCoding takes up the handler's Transfer-Encoding. The framing is the
// server's; another coding than chunked, which the handler then has applied, is
// sent beside it.
func (w *response) readCoding(values []string) {
	if len(values) == 0 || values[0] == "" {
		return
	}
	w.userEncoding, w.noLength = true, true
	w.identity = strings.EqualFold(values[0], "identity")
	if w.userCoding = !w.identity; w.identity {
		return
	}
	for _, value := range values {
		for coding := range strings.SplitSeq(value, ",") {
			coding = textproto.TrimString(coding)
			if coding != "" && !strings.EqualFold(coding, "chunked") { // which must not be named twice (RFC 9112 section 6.1)
				rare := w.rareParts()
				rare.codings = append(rare.codings, coding)
			}
		}
	}
}

// appendCodings says that the body is chunked. There is nothing to say to HTTP/1.0,
// or of an answer without a body (RFC 9112 section 6.1).
func (w *response) appendCodings(b []byte) []byte {
	if w.rare != nil {
		for _, coding := range w.rare.codings {
			b = w.x.server.appendField(b, "Transfer-Encoding", coding)
		}
	}
	return append(b, "Transfer-Encoding: chunked\r\n"...)
}

// mayBeTrailer: not a field on which framing, routing, authentication or the
// meaning of the body depends (RFC 9110 section 6.5.1). net/http has the same
// list, for those that are declared.
func mayBeTrailer(name string) bool {
	switch name {
	case "Authorization", "Cache-Control", "Connection", "Content-Encoding", "Content-Length", "Content-Range", "Content-Type",
		"Expect", "Host", "Keep-Alive", "Max-Forwards", "Pragma", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection",
		"Range", "Realm", "Te", "Trailer", "Transfer-Encoding", "Www-Authenticate":
		return false
	}
	return !strings.HasPrefix(name, "If-")
}

// hasToken looks for a token in a comma-separated list, case-insensitively.
func hasToken(list, token string) bool {
	for element := range strings.SplitSeq(list, ",") {
		if strings.EqualFold(strings.TrimSpace(element), token) {
			return true
		}
	}
	return false
}
