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

// browser is what a browser sends besides Host.
var browser = [][2]string{
	{"User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"},
	{"Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"},
	{"Accept-Language", "en-GB,en;q=0.7,de;q=0.3"},
	{"Accept-Encoding", "gzip, deflate, br"},
	{"Cookie", "session=0123456789abcdef0123456789abcdef; theme=dark"},
	{"Referer", "https://www.example.org/a/page/of/some/length?with=a&query=too"},
	{"Cache-Control", "max-age=0"},
}

// Fields returns so many header fields: those of a browser, then such as
// proxies and tracing add.
func Fields(n int) [][2]string {
	fields := browser[:min(n, len(browser))]
	for i := len(fields); i < n; i++ {
		fields = append(fields[:i:i], [2]string{fmt.Sprintf("X-Field-%d", i), "value-" + strings.Repeat(fmt.Sprint(i%10), 24)})
	}
	return fields
}

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
