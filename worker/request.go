package worker

import (
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
	"unsafe"

	"github.com/catamount-server/catamount/parser"
)

// newExchange makes a request from a head that the parser has found whole in
// head.Fields and raw. An error is a *parser.Error: what is syntactically
// right may still be no URL.
//
// It allocates the exchange, one string that holds the head's bytes and the
// peer's address and of which every other string is a part, the values of the
// fields (both lie behind the exchange unless they are many), and the header map
// (two). A string that a handler keeps keeps all of that alive: a kilobyte or so.
func (s *Server) newExchange(sl *slot, head *parser.Head, raw []byte) (*exchange, error) {
	c := &sl.Value
	var space [64]byte
	peer := appendPeer(space[:0], sl)
	fields := headerFields(head)
	x, values, b := makeExchange(fields, len(raw)+len(peer))
	copy(b[copy(b, raw):], peer)                       // raw lies in a buffer that is about to be reused
	text := unsafe.String(unsafe.SliceData(b), len(b)) // nobody else has b
	x.server, x.slot, x.place, x.listener = s, sl, -1, s.listenerOf(c)
	part := func(span parser.Span) string { return text[span.Start:span.End] }

	r := &x.request
	r.Method = internMethod(part(head.Method))
	r.RequestURI = part(head.Target)
	r.RemoteAddr = text[len(raw):]
	r.ProtoMajor, r.ProtoMinor = int(head.Major), int(head.Minor)
	r.Proto = protoText(head.Major, head.Minor)
	if head.HasHost {
		r.Host = part(head.Host)
	}
	if err := x.setURL(head); err != nil {
		return nil, &parser.Error{Status: http.StatusBadRequest, Reason: parser.ReasonBadTarget, Detail: err.Error()}
	}
	r.Header = makeHeader(head, b, text, fields, values)
	r.ContentLength = max(head.ContentLength, 0)
	r.Body = http.NoBody
	if head.Chunked {
		r.ContentLength = -1
		r.TransferEncoding = []string{"chunked"}
		x.declareTrailers()
	}
	if head.Major == 2 {
		r.ContentLength = -1 // what follows is for the handler that hijacks; see checkVersion in package parser
	}
	if head.Chunked || head.ContentLength > 0 {
		x.body = &requestBody{stored: stored{budget: &s.blocks}, remaining: head.ContentLength}
		r.Body = x.body
	}
	if c.bridged != nil {
		r.TLS = c.bridged.tlsState()
	}
	r.Close = !s.wantsKeepAlive(head)

	x.context.exchange = x
	x.context.follow()
	x.setContext()
	x.response.init(x, head)
	return x, nil
}

// wantsKeepAlive is the client's wish (RFC 9112 section 9.3): close wins over
// everything; HTTP/1.0 has to ask.
func (s *Server) wantsKeepAlive(head *parser.Head) bool {
	if head.Close || head.Major != 1 {
		return false
	}
	return head.Minor > 0 || head.KeepAlive
}

// appendPeer appends the text of the peer's address.
func appendPeer(b []byte, sl *slot) []byte {
	c := &sl.Value
	switch {
	case c.bridged != nil:
		return append(b, c.bridged.remote...)
	case c.peer.hasZone():
		return peerWithZone(sl.FD(), &c.peer).AppendTo(b)
	}
	return c.peer.appendTo(b)
}

// setURL fills the request's URL. The fast path is an origin-form target
// without escapes, which needs no parsing beyond finding the query.
func (x *exchange) setURL(head *parser.Head) error {
	r := &x.request
	r.URL = &x.url
	target := r.RequestURI
	if head.Form == parser.OriginForm && isPlainTarget(target) {
		path, query, found := strings.Cut(target, "?")
		x.url.Path, x.url.RawQuery = path, query
		x.url.ForceQuery = found && query == ""
		return nil
	}
	if head.Form == parser.AuthorityForm {
		// As net/http has it: CONNECT host:port is parsed as a URL's
		// authority; an empty scheme is what handlers see.
		parsed, err := url.ParseRequestURI("http://" + target)
		if err != nil {
			return err
		}
		parsed.Scheme = ""
		x.url = *parsed
		r.Host = x.url.Host
		return nil
	}
	parsed, err := url.ParseRequestURI(target)
	if err != nil {
		return err
	}
	x.url = *parsed
	if x.url.Host != "" {
		// RFC 9112 section 3.2.2: the target's authority replaces the field's.
		r.Host = x.url.Host
	}
	return nil
}

// isPlainTarget reports whether url.ParseRequestURI would only cut the query
// off: no escape, no byte that its encoding rules would notice, and not the
// two slashes of an authority.
func isPlainTarget(target string) bool {
	if len(target) > 1 && target[1] == '/' {
		return false
	}
	for i := 0; i < len(target); i++ {
		if !plainTarget[target[i]] {
			if target[i] == '?' {
				return true // the query is kept as it is
			}
			return false
		}
	}
	return true
}

// plainTarget are the bytes of a path that are the same encoded and decoded.
var plainTarget = func() (table [256]bool) {
	for _, c := range []byte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/-_.~$&+,:;=@") {
		table[c] = true
	}
	return table
}()

// smallMap is how many keys a map takes before it grows. A smaller hint has no
// effect but to cost 25 ns.
const smallMap = 8

// headerFields is how many fields go into the header map. Host and
// Transfer-Encoding do not, as in net/http: they are fields of the request.
func headerFields(head *parser.Head) int {
	count := len(head.Fields)
	if head.HasHost {
		count--
	}
	if head.Chunked {
		count--
	}
	return count
}

// makeHeader makes the header map of count fields. Those that occur once share
// one array for their values, each slice capped at one, so that a handler who
// appends cannot reach the neighbour. b is the memory of text, which nobody else
// has seen yet: names are brought into their canonical form there.
func makeHeader(head *parser.Head, b []byte, text string, count int, values []string) http.Header {
	var header http.Header
	if count > smallMap {
		header = make(http.Header, count)
	} else {
		header = make(http.Header)
	}
	pragma := false
	var seen [(parser.NumKnown + 63) / 64]uint64 // by Known
	for i := range head.Fields {
		field := &head.Fields[i]
		if field.Known == parser.KnownHost || field.Known == parser.KnownTransferEncoding {
			continue
		}
		name := field.Known.String()
		if field.Known == 0 {
			canonicalize(field.Name.In(b))
			name = text[field.Name.Start:field.Name.End]
		}
		value := text[field.Value.Start:field.Value.End]
		pragma = pragma || field.Known == parser.KnownPragma
		// A known name that has not been seen need not be looked up.
		bit := uint64(1) << (field.Known % 64)
		if field.Known == 0 || seen[field.Known/64]&bit != 0 {
			if present, ok := header[name]; ok {
				header[name] = append(present, value)
				continue
			}
		}
		seen[field.Known/64] |= bit
		values[0] = value
		header[name] = values[:1:1]
		values = values[1:]
	}
	if pragma && header["Pragma"][0] == "no-cache" && header["Cache-Control"] == nil {
		// HTTP/1.0's way to say it (RFC 9111 section 5.4), as net/http has it.
		header["Cache-Control"] = []string{"no-cache"}
	}
	return header
}

// canonicalize is textproto.CanonicalMIMEHeaderKey in place, for what the parser
// has found to be a token.
func canonicalize(name []byte) {
	upper := true
	for i, c := range name {
		switch {
		case upper && 'a' <= c && c <= 'z':
			name[i] = c - ('a' - 'A')
		case !upper && 'A' <= c && c <= 'Z':
			name[i] = c + ('a' - 'A')
		}
		upper = c == '-'
	}
}

// declareTrailers makes the keys of the Trailer field known before the body is
// read, and takes the framing field out of the header, as net/http does.
func (x *exchange) declareTrailers() {
	declared, ok := x.request.Header["Trailer"]
	if !ok {
		return
	}
	delete(x.request.Header, "Trailer")
	trailer := make(http.Header)
	for _, list := range declared {
		for name := range strings.SplitSeq(list, ",") {
			name = textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name))
			switch name {
			case "", "Transfer-Encoding", "Trailer", "Content-Length":
			default:
				trailer[name] = nil
			}
		}
	}
	if len(trailer) > 0 {
		x.request.Trailer = trailer
	}
}

// setTrailers puts the received trailer fields into the request.
func (x *exchange) setTrailers() {
	if x.body == nil {
		return
	}
	for _, field := range x.body.chunked.Trailers() {
		if x.request.Trailer == nil {
			x.request.Trailer = make(http.Header)
		}
		x.request.Trailer.Add(field.Name, field.Value)
	}
}

func protoText(major, minor uint8) string {
	switch {
	case major == 1 && minor == 1:
		return "HTTP/1.1"
	case major == 1 && minor == 0:
		return "HTTP/1.0"
	}
	return "HTTP/" + string('0'+rune(major)) + "." + string('0'+rune(minor))
}

// internMethod returns the constant for a usual method, so that a kept method
// does not keep the head.
func internMethod(method string) string {
	switch method {
	case http.MethodGet:
		return http.MethodGet
	case http.MethodHead:
		return http.MethodHead
	case http.MethodPost:
		return http.MethodPost
	case http.MethodPut:
		return http.MethodPut
	case http.MethodPatch:
		return http.MethodPatch
	case http.MethodDelete:
		return http.MethodDelete
	case http.MethodOptions:
		return http.MethodOptions
	}
	return method
}
