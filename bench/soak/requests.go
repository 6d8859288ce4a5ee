package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
)

// A request is one that a good client sends.
type request struct {
	what string // for the report
	raw  []byte
	want want
	last bool // the client announces that it is its last one
}

// maxBody is what good clients send and ask for at most.
const maxBody = 300 << 10

// request makes a random one whose body is no larger than limit.
func (c *client) request(limit int) request {
	body := c.content(c.size(min(limit, maxBody) + 1))
	switch kind := c.random.IntN(100); {
	case kind < 25:
		return c.get("/hello", want{text: helloText})
	case kind < 45:
		return c.echo(body)
	case kind < 55:
		return c.live(body)
	case kind < 72:
		body = c.content(c.size(maxBody))
		return c.get(c.bigTarget(body), want{method: c.getOrHead(), body: &body})
	case kind < 80:
		body.size = min(body.size, 20<<10)
		target := fmt.Sprintf("/stream?n=%d&start=%d&piece=%d", body.size, body.start, 1+body.size/(1+c.random.IntN(20)))
		return c.get(target, want{body: &body})
	case kind < 86:
		return c.get("/slow?ms="+strconv.Itoa(c.random.IntN(50)), want{text: helloText})
	case kind < 92:
		hash := sha256.New()
		_ = body.writeTo(hash, period)
		return c.post(c.uploadPath(), body, want{text: fmt.Sprintf("%d %x", body.size, hash.Sum(nil))})
	case kind < 96:
		return c.get("/late", want{text: helloText, fields: map[string]string{"X-Late": ""}})
	default:
		return c.get("/fields", want{text: helloText, fields: map[string]string{
			"X-Split": "", "X-Nul": "", "X-Injected": "", "X Space": ""}})
	}
}

func (c *client) getOrHead() string {
	if c.chance(10) {
		return http.MethodHead
	}
	return http.MethodGet
}

// bigTarget asks for a body that is written in pieces, or is part of a file.
func (c *client) bigTarget(body content) string {
	target := fmt.Sprintf("/file?n=%d&start=%d", body.size, body.start)
	if c.chance(60) {
		target = fmt.Sprintf("/big?n=%d&start=%d&piece=%d", body.size, body.start, 1+c.random.IntN(1<<(8+c.random.IntN(9))))
	}
	if c.chance(50) {
		target += "&declare=1"
	}
	return target
}

func (c *client) echo(body content) request {
	target := "/echo?piece=" + strconv.Itoa(1+body.size/(1+c.random.IntN(10)))
	if c.chance(50) {
		target += "&declare=1"
	}
	return c.post(target, body, want{body: &body, fields: map[string]string{checksumField: checksum(body.bytes())}})
}

// live makes a request whose handler starts before the body is here: it sends
// back what it reads, or reads only a part of it.
func (c *client) live(body content) request {
	if c.chance(60) {
		return c.post("/live/echo", body, want{body: &body})
	}
	part := body.size
	if body.size > 0 {
		part = c.random.IntN(body.size)
	}
	taken := content{body.start, part}
	return c.post("/live/part?take="+strconv.Itoa(part), body, want{text: checksum(taken.bytes())})
}

// uploadPath is that of a buffered upload, or of one that is read as it comes.
func (c *client) uploadPath() string {
	if c.chance(40) {
		return "/live/upload"
	}
	return "/upload"
}

// get makes a request without a body.
func (c *client) get(target string, w want) request {
	if w.method == "" {
		w.method = http.MethodGet
	}
	return c.compose(target, "\r\n", nil, w)
}

// post makes a request with a body, with its length or in chunks, now and then
// with an expectation.
func (c *client) post(target string, body content, w want) request {
	w.method = http.MethodPost
	if w.fields == nil {
		w.fields = map[string]string{}
	}
	fields := ""
	if c.chance(10) {
		fields = "Expect: 100-continue\r\n"
	}
	if c.chance(50) {
		return c.compose(target, fields+"Content-Length: "+strconv.Itoa(body.size)+"\r\n\r\n", body.bytes(), w)
	}
	trailer := ""
	if c.chance(30) && w.fields[checksumField] != "" { // a buffered echo
		trailer = trailerField + ": " + strconv.Itoa(body.size) + "\r\n"
		w.fields[trailerField] = strconv.Itoa(body.size)
		fields += "Trailer: " + trailerField + "\r\n"
	}
	return c.compose(target, fields+"Transfer-Encoding: chunked\r\n\r\n", chunks(body, trailer, c.random), w)
}

// chunks is a body in the chunked coding.
func chunks(body content, trailer string, random *rand.Rand) []byte {
	b := make([]byte, 0, body.size+body.size/8+100)
	limit := max(1<<random.IntN(16), body.size/100)
	for offset := 0; offset < body.size; {
		piece := body.piece(offset, 1+random.IntN(limit))
		b = strconv.AppendInt(b, int64(len(piece)), 16)
		if random.IntN(50) == 0 {
			b = append(b, `;why="because"`...)
		}
		b = append(b, "\r\n"...)
		b = append(b, piece...)
		b = append(b, "\r\n"...)
		offset += len(piece)
	}
	return append(b, "0\r\n"+trailer+"\r\n"...)
}

// compose makes the bytes of a request. rest is what follows the common fields.
func (c *client) compose(target, rest string, body []byte, w want) request {
	c.serial++
	id := c.name + "-" + strconv.Itoa(c.serial)
	if w.fields == nil {
		w.fields = map[string]string{}
	}
	w.fields[idField] = id
	w.status = http.StatusOK
	var head strings.Builder
	if c.chance(3) {
		head.WriteString("\r\n") // RFC 9112 section 2.2: an empty line before a request is ignored
	}
	absolute := ""
	if c.chance(3) {
		absolute = "http://soak.test"
	}
	fmt.Fprintf(&head, "%s %s%s HTTP/1.1\r\nHost: soak.test\r\n%s: %s\r\n", w.method, absolute, target, idField, id)
	for range c.random.IntN(6) {
		fmt.Fprintf(&head, "X-%c: %s\r\n", 'a'+c.random.IntN(26), strings.Repeat("v", c.random.IntN(200)))
	}
	head.WriteString(rest)
	return request{what: w.method + " " + target + " (" + id + ")", raw: append([]byte(head.String()), body...), want: w}
}

// asLast makes a request the last one of its connection: by announcement, or by
// an older version, where the end of the answer may be the end of the
// connection.
func (c *client) asLast(r request) request {
	r.last = true
	text := string(r.raw)
	if c.chance(40) && !strings.Contains(text, "chunked") && !strings.Contains(text, "Expect:") {
		text = strings.Replace(text, " HTTP/1.1\r\n", " HTTP/1.0\r\n", 1)
	} else {
		text = strings.Replace(text, "\r\nHost:", "\r\nConnection: close\r\nHost:", 1)
	}
	r.raw = []byte(text)
	return r
}

// uploadHead is the head of an upload of n bytes, or in chunks with -1.
func uploadHead(path string, n int, id string) string {
	framing := "Content-Length: " + strconv.Itoa(n)
	if n < 0 {
		framing = "Transfer-Encoding: chunked"
	}
	return "POST " + path + " HTTP/1.1\r\nHost: soak.test\r\n" + idField + ": " + id + "\r\n" + framing + "\r\n\r\n"
}

// chunkWriter writes each piece as a chunk.
type chunkWriter struct{ io.Writer }

func (w chunkWriter) Write(p []byte) (int, error) {
	chunk := append(strconv.AppendInt(nil, int64(len(p)), 16), "\r\n"...)
	chunk = append(append(chunk, p...), "\r\n"...)
	if _, err := w.Writer.Write(chunk); err != nil {
		return 0, err
	}
	return len(p), nil
}
