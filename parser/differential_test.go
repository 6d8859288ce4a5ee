package parser

import (
	"bufio"
	"net/http"
	"net/textproto"
	"net/url"
	"reflect"
	"strings"
	"testing"
)

// lenient are requests that net/http's ReadRequest accepts and we refuse, on
// purpose.
var lenient = []struct{ why, raw string }{
	{"a bare LF ends a line", "GET / HTTP/1.1\nHost: a\n\n"},
	{"no Host (its server refuses that later)", "GET / HTTP/1.1\r\n\r\n"},
	{"a Host with wrong bytes (its server refuses that later)", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"},
	{"the same Content-Length twice", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"},
	{"Transfer-Encoding and Content-Length", "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"},
	{"Transfer-Encoding in HTTP/1.0", "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{"a folded line", "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n"},
	{"a fragment", "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"* for other methods than OPTIONS", "GET * HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"PRI * in another version", "PRI * HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"a URI without an authority", "GET mailto:a HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"user information", "GET http://a@b/ HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"CONNECT without a port", "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"other versions (its server refuses that later)", "GET / HTTP/2.0\r\nHost: a\r\n\r\n"},
	{"a method longer than 32 bytes", strings.Repeat("A", 33) + " / HTTP/1.1\r\nHost: a\r\n\r\n"},
}

func TestNetHTTPIsMoreLenient(t *testing.T) {
	for _, test := range lenient {
		if _, err := http.ReadRequest(bufio.NewReader(strings.NewReader(test.raw))); err != nil {
			t.Errorf("%s: net/http refuses it too: %v", test.why, err)
		}
		if _, err := parseAt(new(Head), test.raw, nil); err == nil || err == ErrIncomplete {
			t.Errorf("%s: we say %v", test.why, err)
		}
	}
}

// FuzzDifferential: what we accept, net/http accepts, and understands in the
// same way.
//
// There is one thing that we accept and it does not: a target with bytes that
// may be there, in a form that is right, but that url.ParseRequestURI does not
// like ("/%zz"). We leave that to whoever makes a URL of it. And it knows no
// empty lines before a request.
func FuzzDifferential(f *testing.F) {
	seedRequests(func(raw string) { f.Add(raw) })
	for _, test := range lenient {
		f.Add(test.raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		var h Head
		buf := []byte(raw)
		n, err := h.Parse(buf, nil)
		if err != nil {
			return
		}
		got := snapshot(&h, buf, n)
		uri := got.Target
		if h.Form == AuthorityForm {
			uri = "http://" + uri
		}
		parsedURI, err := url.ParseRequestURI(uri)
		if err != nil {
			return
		}

		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(strings.TrimLeft(raw, "\r\n"))))
		if err != nil {
			t.Fatalf("net/http: %v; we: %+v", err, got)
		}
		if r.Method != got.Method || r.RequestURI != got.Target || r.Proto != "HTTP/"+got.Version {
			t.Errorf("net/http: %s %s %s; we: %+v", r.Method, r.RequestURI, r.Proto, got)
		}
		wantHost := got.Host
		if h.Form == AbsoluteForm || h.Form == AuthorityForm {
			wantHost = parsedURI.Host
		}
		if r.Host != wantHost {
			t.Errorf("net/http: host %q; we: %+v", r.Host, got)
		}
		if h.Form == OriginForm || h.Form == AbsoluteForm {
			if r.URL.RawQuery != got.Query || r.URL.EscapedPath() != got.Path && r.URL.Path != got.Path && r.URL.Opaque == "" {
				t.Errorf("net/http: path %q, query %q; we: %+v", r.URL.Path, r.URL.RawQuery, got)
			}
		}
		wantLength := got.ContentLength
		if wantLength < 0 && !got.Chunked && got.Version != "2.0" {
			wantLength = 0
		}
		if r.ContentLength != wantLength || (len(r.TransferEncoding) == 1) != got.Chunked {
			t.Errorf("net/http: %d, %v; we: %+v", r.ContentLength, r.TransferEncoding, got)
		}
		wantClose := got.Close || got.Version == "1.0" && !got.KeepAlive || got.Version == "2.0"
		if r.Close != wantClose {
			t.Errorf("net/http: close %v; we: %+v", r.Close, got)
		}
		if want := netHTTPHeader(&h, buf); !reflect.DeepEqual(r.Header, want) {
			t.Errorf("net/http: %q; we: %q", r.Header, want)
		}
	})
}

// netHTTPHeader makes of our fields what ReadRequest makes of them.
func netHTTPHeader(h *Head, buf []byte) http.Header {
	header := http.Header{}
	for _, f := range h.Fields {
		key := textproto.CanonicalMIMEHeaderKey(string(f.Name.In(buf)))
		if f.Known != KnownNone && f.Known.String() != key {
			key = "known as " + f.Known.String()
		}
		header.Add(key, string(f.Value.In(buf)))
	}
	header.Del("Host")
	if h.Chunked {
		header.Del("Transfer-Encoding")
		header.Del("Trailer")
	}
	if values := header["Pragma"]; len(values) > 0 && values[0] == "no-cache" && header["Cache-Control"] == nil {
		header.Set("Cache-Control", "no-cache")
	}
	return header
}
