package load

import (
	"bytes"
	"fmt"
	"strings"
)

// Request is what a load sends, time and again.
type Request struct {
	Method   string // "": GET, or POST when there is a body
	Path     string // "": /
	Headers  int    // fields besides Host and what a body needs; see Fields
	Body     int    // bytes
	Close    bool   // a connection for each request
	Pipeline int    // requests in one write; 0 is 1
}

func (r Request) method() string {
	switch {
	case r.Method != "":
		return r.Method
	case r.Body > 0:
		return "POST"
	}
	return "GET"
}

func (r Request) path() string {
	if r.Path == "" {
		return "/"
	}
	return r.Path
}

func (r Request) pipeline() int { return max(r.Pipeline, 1) }

// fields are what a browser sends besides Host, then what proxies, tracing and
// an application add.
var fields = [][2]string{
	{"User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"},
	{"Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"},
	{"Accept-Language", "en-GB,en;q=0.7,de;q=0.3"},
	{"Accept-Encoding", "gzip, deflate, br"},
	{"Cookie", "session=0123456789abcdef0123456789abcdef; theme=dark"},
	{"Referer", "https://www.example.org/a/page/of/some/length?with=a&query=too"},
	{"Cache-Control", "max-age=0"},
	{"Sec-Fetch-Dest", "document"},
	{"Sec-Fetch-Mode", "navigate"},
	{"Sec-Fetch-Site", "same-origin"},
	{"Sec-Fetch-User", "?1"},
	{"Upgrade-Insecure-Requests", "1"},
	{"Priority", "u=0, i"},
	{"Te", "trailers"},
	{"If-None-Match", `"0123456789abcdef"`},
	{"If-Modified-Since", "Sat, 01 Jan 2028 00:00:00 GMT"},
	{"Authorization", "Bearer 0123456789abcdef0123456789abcdef"},
	{"X-Forwarded-For", "203.0.113.7, 198.51.100.2"},
	{"X-Forwarded-Proto", "https"},
	{"X-Forwarded-Host", "www.example.org"},
	{"X-Forwarded-Port", "443"},
	{"X-Real-Ip", "203.0.113.7"},
	{"X-Request-Id", "01234567-89ab-cdef-0123-456789abcdef"},
	{"Traceparent", "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"},
	{"Tracestate", "vendor=value"},
	{"Forwarded", "for=203.0.113.7;proto=https"},
	{"X-Tenant", "one-of-many"},
	{"X-Feature-Flags", "a,b,c"},
	{"X-Client-Version", "12.34.56"},
}

// Fields returns the first n of them, at most 29.
func Fields(n int) [][2]string { return fields[:n] }

// Bytes returns one request as it goes over the wire.
func (r Request) Bytes() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: bench.example.org\r\n", r.method(), r.path())
	for _, field := range Fields(r.Headers) {
		fmt.Fprintf(&b, "%s: %s\r\n", field[0], field[1])
	}
	if r.Close {
		b.WriteString("Connection: close\r\n")
	}
	if r.Body > 0 {
		fmt.Fprintf(&b, "Content-Type: application/octet-stream\r\nContent-Length: %d\r\n", r.Body)
	}
	b.WriteString("\r\n")
	b.WriteString(strings.Repeat("x", r.Body))
	return b.Bytes()
}
