package parser

import "io"

// trailerSection collects the bytes of a trailer section, which unlike those of
// a head are not presented again, and parses them as the fields of a head.
type trailerSection struct {
	buf  []byte
	head Head
}

// parseTrailer goes on with the trailer section, of which src is the rest or a
// part of it. It returns io.EOF when src[:n] ended it.
func (d *ChunkedDecoder) parseTrailer(src []byte, limits *Limits) (n int, err error) {
	// Nearly always there are no fields, and nothing needs to be kept.
	for n < len(src) && d.trailer == nil {
		switch c := src[n]; {
		case d.state == chunkDone:
			return 0, io.EOF
		case d.state == chunkTrailer && c == '\r':
			d.state = chunkTrailerLF
		case d.state == chunkTrailerLF && c != '\n':
			return 0, d.fail(ReasonBareCR)
		case d.state == chunkTrailerLF:
			d.state = chunkDone
			return n + 1, io.EOF
		default:
			d.trailer = &trailerSection{head: Head{state: stateFieldStart, trailer: true}}
			continue
		}
		n++
	}
	switch {
	case d.state == chunkDone:
		return 0, io.EOF
	case d.trailer == nil:
		return n, ErrIncomplete
	}

	t := d.trailer
	room := limits.Trailer
	if uint(room) > maxHead {
		room = maxHead
	}
	before := len(t.buf)
	// What comes behind the section may be copied here too, up to the
	// limit; the parser does not get there.
	t.buf = append(t.buf, src[n:min(len(src), n+room-before)]...)
	if t.head.parseFields(t.buf, limits) {
		end := int(t.head.pos)
		d.trailers = t.fields(t.buf[:end])
		d.trailer, d.state = nil, chunkDone
		return n + end - before, io.EOF
	}
	switch {
	case t.head.state == stateFailed:
		d.state, d.failure = chunkFailed, t.head.failure
		return 0, d.failure
	case before+len(src)-n > room:
		return 0, d.fail(ReasonTrailerTooLong)
	}
	return len(src), ErrIncomplete
}

// fields returns the allowed ones of the fields in section.
func (t *trailerSection) fields(section []byte) []TrailerField {
	text := string(section)
	fields := make([]TrailerField, 0, len(t.head.Fields))
	for _, f := range t.head.Fields {
		if !forbiddenInTrailer[f.Known] {
			fields = append(fields, TrailerField{
				Name:  text[f.Name.Start:f.Name.End],
				Value: text[f.Value.Start:f.Value.End],
			})
		}
	}
	return fields
}

// forbiddenInTrailer has the fields that net/http's server does not send in
// trailers (golang.org/x/net/http/httpguts.ValidTrailerHeader), and those with
// which proxies tell who a client is. Content-Digest is not among them: RFC
// 9530 was made for it to come last.
var forbiddenInTrailer = [NumKnown]bool{
	KnownHost:                true,
	KnownContentLength:       true,
	KnownTransferEncoding:    true,
	KnownConnection:          true,
	KnownExpect:              true,
	KnownTrailer:             true,
	KnownAuthorization:       true,
	KnownCacheControl:        true,
	KnownCfConnectingIp:      true,
	KnownContentDisposition:  true,
	KnownContentEncoding:     true,
	KnownContentLanguage:     true,
	KnownContentLocation:     true,
	KnownContentRange:        true,
	KnownContentType:         true,
	KnownCookie:              true,
	KnownForwarded:           true,
	KnownHttp2Settings:       true,
	KnownIfMatch:             true,
	KnownIfModifiedSince:     true,
	KnownIfNoneMatch:         true,
	KnownIfRange:             true,
	KnownIfUnmodifiedSince:   true,
	KnownKeepAlive:           true,
	KnownMaxForwards:         true,
	KnownOrigin:              true,
	KnownPragma:              true,
	KnownProxyAuthenticate:   true,
	KnownProxyAuthorization:  true,
	KnownProxyConnection:     true,
	KnownRange:               true,
	KnownSetCookie:           true,
	KnownTe:                  true,
	KnownTrueClientIp:        true,
	KnownUpgrade:             true,
	KnownWwwAuthenticate:     true,
	KnownXClientIp:           true,
	KnownXForwardedFor:       true,
	KnownXForwardedHost:      true,
	KnownXForwardedPort:      true,
	KnownXForwardedPrefix:    true,
	KnownXForwardedProto:     true,
	KnownXForwardedScheme:    true,
	KnownXForwardedServer:    true,
	KnownXForwardedSsl:       true,
	KnownXHttpMethodOverride: true,
	KnownXRealIp:             true,
	KnownXScheme:             true,
}
