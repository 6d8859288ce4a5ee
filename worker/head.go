package worker

import (
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"

	"github.com/catamount-server/catamount/parser"
)

const (
	// fewFields is how many fields of an answer are sorted by insertion, which
	// takes the square of their number. A handler that passes on what another
	// server sent may have a hundred thousand: that would be a minute.
	fewFields = 64
	// keptFields is how many a place keeps room for.
	keptFields = 1024
)

// headerField is a field of the handler's header on its way to the output.
type headerField struct {
	key    string
	values []string
}

// startHead freezes the header: status line and the handler's fields go into
// the output now, so that later changes of the map have no effect and nothing
// needs to be cloned. The fields that depend on the body follow in compose.
func (w *response) startHead() {
	sc := w.scratch
	b := appendStatusLine(sc.cur.B, w.atLeast11, w.status)
	w.frozen = uint16(len(w.header))
	if b, done := w.appendUsual(b); done {
		sc.cur.B = b
		return
	}
	fields := sc.fields[:0]
	for key, values := range w.header {
		// Sorted, so that an answer is the same bytes each time. The maps are
		// small: insertion beats slices.SortFunc and its comparisons.
		fields = append(fields, headerField{key, values})
		for i := len(fields) - 1; i > 0 && len(fields) <= fewFields && fields[i].key < fields[i-1].key; i-- {
			fields[i], fields[i-1] = fields[i-1], fields[i]
		}
	}
	if len(fields) > fewFields {
		slices.SortFunc(fields, func(a, b headerField) int { return strings.Compare(a.key, b.key) })
	}
	for i := range fields {
		if w.notice(fields[i].key, fields[i].values) {
			for _, value := range fields[i].values {
				b = w.x.server.appendField(b, fields[i].key, value)
			}
		}
		fields[i] = headerField{} // the scratch outlives the request
	}
	if sc.fields = fields[:0]; cap(fields) > keptFields {
		sc.fields = nil
	}
	sc.cur.B = b
}

// appendUsual appends the fields of a header that has none but those of most
// answers: walking a map costs 45 ns, asking it for one key 8. It reports false
// when there are others.
func (w *response) appendUsual(b []byte) ([]byte, bool) {
	others := len(w.header)
	if others > 2 {
		return b, false
	}
	var types, lengths []string
	var typed, measured bool
	if others > 0 {
		if types, typed = w.header["Content-Type"]; typed {
			others--
		}
	}
	if others > 0 {
		if lengths, measured = w.header["Content-Length"]; measured {
			others--
		}
	}
	if others > 0 {
		return b, false
	}
	if measured {
		w.notice("Content-Length", lengths)
	}
	if typed && w.notice("Content-Type", types) {
		for _, value := range types {
			b = w.x.server.appendValid(b, "Content-Type", value)
		}
	}
	return b, true
}

// compose completes the head: framing, sniffed type, date, connection. done
// says that the body held back is all of it; next are the bytes that come
// after it otherwise.
func (w *response) compose(done bool, next []byte) {
	sc := w.scratch
	b := sc.cur.B
	if !w.userDate {
		b = append(b, w.x.server.date.now()...)
	}
	length := int64(-1)
	switch {
	case w.noBody || w.status == http.StatusSwitchingProtocols:
	case w.declared >= 0 && !w.userCoding: // a coding rules the length out (RFC 9112 section 6.2)
		length = w.declared
	case w.hasTrailers():
	case done && !w.noLength && (!w.isHead || len(sc.hold) > 0):
		length = int64(len(sc.hold))
	}
	if !w.userType && !w.userEncoding && !w.noBody && length != 0 {
		if head := sniffed(sc, next); len(head) > 0 {
			b = append(b, "Content-Type: "...)
			b = append(b, detectContentType(head)...)
			b = append(b, "\r\n"...)
		}
	}
	switch {
	case length >= 0:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, length, 10)
		b = append(b, "\r\n"...)
	case w.noBody || w.isHead:
	case w.atLeast11 && !w.identity:
		w.chunked = true
		b = w.appendCodings(b)
	default:
		w.closeAfter, w.untilClose = true, true // HTTP/1.0, or identity: the end is where we close
	}
	w.composed = true
	w.settleConnection()
	if w.keepsAliveAsUsual() {
		sc.cur.B = append(b, w.x.server.usualEnd...)
		return
	}
	sc.cur.B = append(w.appendConnection(b), "\r\n"...)
}

func (w *response) hasTrailers() bool {
	if w.rare != nil && len(w.rare.trailers) > 0 {
		return w.atLeast11
	}
	if !w.prefixed && len(w.header) != int(w.frozen) { // fields were added since
		for key := range w.header {
			w.prefixed = w.prefixed || strings.HasPrefix(key, http.TrailerPrefix)
		}
	}
	return w.prefixed && w.atLeast11
}

// sniffLength is how much of a body its type is recognised by.
const sniffLength = 512

// sniffed returns the first bytes of the body.
func sniffed(sc *scratch, next []byte) []byte {
	if len(sc.hold) == 0 {
		return next[:min(len(next), sniffLength)]
	}
	if len(sc.hold) < sniffLength && len(next) > 0 {
		head := append([]byte(nil), sc.hold...)
		return append(head, next[:min(len(next), sniffLength-len(sc.hold))]...)
	}
	return sc.hold[:min(len(sc.hold), sniffLength)]
}

// settleConnection decides whether this is the last answer.
func (w *response) settleConnection() {
	s := w.x.server
	if b := w.x.streamed(); b != nil && b.spoils() {
		w.closeAfter = true
	}
	if w.status == http.StatusSwitchingProtocols {
		w.closeAfter = true // what follows is no HTTP; a handler that speaks the other protocol hijacks
	}
	if !w.closeAfter && (!s.options.KeepAlive || s.announcesClose(w.x.client()) || s.isLastRequest(w.x.client())) {
		w.closeAfter = true
	}
}

// keepsAliveAsUsual reports whether appendConnection would write what
// aliveFields has.
func (w *response) keepsAliveAsUsual() bool {
	return !w.closeAfter && w.atLeast11 && !w.userAlive && w.status != http.StatusSwitchingProtocols &&
		(w.rare == nil || w.rare.connection == nil)
}

// aliveFields is what an answer says of a connection that goes on. Keep-Alive is
// a hop-by-hop field and so named in Connection (RFC 9110 section 7.6.1).
func aliveFields(aliveLine string) string {
	if aliveLine == "" {
		return ""
	}
	return "Connection: keep-alive\r\n" + aliveLine
}

// appendConnection says what becomes of the connection.
func (w *response) appendConnection(b []byte) []byte {
	s := w.x.server
	switch {
	case w.rare != nil && w.rare.connection != nil:
		b = w.appendOwnConnection(b)
	case w.status == http.StatusSwitchingProtocols:
	case w.closeAfter:
		if w.atLeast11 { // HTTP/1.0 closes without a word
			b = append(b, "Connection: close\r\n"...)
		}
	case !w.atLeast11 || s.aliveLine != "":
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	if !w.closeAfter && !w.userAlive && w.status != http.StatusSwitchingProtocols {
		b = append(b, s.aliveLine...)
	}
	return b
}

// appendOwnConnection writes the handler's Connection options, with what is
// true of the connection in place of what the handler said of it.
func (w *response) appendOwnConnection(b []byte) []byte {
	var options []string
	// Keep-alive is to be named, whatever the handler said?
	alive := !w.atLeast11 || w.userAlive || w.x.server.aliveLine != ""
	for _, value := range w.rare.connection {
		for option := range strings.SplitSeq(value, ",") {
			option = strings.TrimSpace(option)
			switch {
			case option == "" || strings.EqualFold(option, "close"):
			case strings.EqualFold(option, "keep-alive"):
				alive = true
			case !parser.ValidToken(option):
				w.x.server.dropField("Connection", value)
			default:
				options = append(options, option)
			}
		}
	}
	switch {
	case w.status == http.StatusSwitchingProtocols:
	case w.closeAfter:
		options = append(options, "close")
	case alive:
		options = append(options, "keep-alive")
	}
	if len(options) == 0 {
		return b
	}
	return w.x.server.appendField(b, "Connection", strings.Join(options, ", "))
}

// writeInformational sends a 1xx answer with the header as it stands, at once.
func (w *response) writeInformational(status int) {
	if !w.atLeast11 || w.err != nil {
		return // RFC 9110 section 15.2: never to an HTTP/1.0 client
	}
	s := w.x.server
	if b := w.x.streamed(); b != nil && status == http.StatusContinue {
		b.wantsContinue.Store(false) // the handler has said it
	}
	b := appendStatusLine(w.scratch.cur.B, true, status)
	for key, values := range w.header {
		if name := framingName(key); name == "Content-Length" || name == "Transfer-Encoding" || strings.HasPrefix(key, http.TrailerPrefix) {
			continue
		}
		for _, value := range values {
			b = s.appendField(b, key, value)
		}
	}
	w.scratch.cur.B = append(b, "\r\n"...)
	_ = s.sendAll(w) // the failure stays in w.err
}

// appendField appends a field line. What would split the answer, or is no
// field at all, is dropped and logged: it is a bug of the handler, often an
// attack on it.
func (s *Server) appendField(b []byte, key, value string) []byte {
	if !parser.ValidToken(key) {
		s.dropField(key, value)
		return b
	}
	return s.appendValid(b, key, value)
}

func (s *Server) dropField(key, value string) {
	s.stats.droppedFields.Add(1)
	s.log.warn(limitKey{event: "dropped field", detail: key}, "response header field dropped: invalid name or value", "name", key, "value", value)
}

// appendValid is appendField for a name that is known to be one. Whitespace
// around the value is no part of it (RFC 9110 section 5.5), and left out.
func (s *Server) appendValid(b []byte, key, value string) []byte {
	value = textproto.TrimString(value)
	if !parser.ValidFieldValue(value) {
		s.dropField(key, value)
		return b
	}
	b = append(b, key...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

func appendStatusLine(b []byte, atLeast11 bool, status int) []byte {
	if status == http.StatusOK {
		if atLeast11 {
			return append(b, "HTTP/1.1 200 OK\r\n"...)
		}
		return append(b, "HTTP/1.0 200 OK\r\n"...)
	}
	if atLeast11 {
		b = append(b, "HTTP/1.1 "...)
	} else {
		b = append(b, "HTTP/1.0 "...)
	}
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	if text := http.StatusText(status); text != "" {
		b = append(b, text...)
	} else {
		b = append(b, "status code "...)
		b = strconv.AppendInt(b, int64(status), 10)
	}
	return append(b, "\r\n"...)
}
