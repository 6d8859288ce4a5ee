package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// A nonsense is what no server should understand, with the status that it gets.
type nonsense struct {
	name   string
	bytes  string
	status int
}

const (
	line     = "GET /hello HTTP/1.1\r\n"
	postLine = "POST /echo HTTP/1.1\r\nHost: soak.test\r\n"
	hostLine = "Host: soak.test\r\n"
	inChunks = postLine + "Transfer-Encoding: chunked\r\n\r\n"
)

// nonsenses are refused with certainty: each has a reason of its own in the
// parser.
var nonsenses = []nonsense{
	{"TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\x5a\x00\xff", 170), 400},
	{"old version", "GET / HTTP/0.9\r\n\r\n", 505},
	{"no version", "GET /\r\n\r\n", 400},
	{"no host", line + "\r\n", 400},
	{"two hosts", line + hostLine + hostLine + "\r\n", 400},
	{"line feeds alone", "GET / HTTP/1.1\nHost: a\n\n", 400},
	{"space before a colon", line + "Host : a\r\n\r\n", 400},
	{"folded field", line + hostLine + "X-A: b\r\n c\r\n\r\n", 400},
	{"NUL in a value", line + hostLine + "X-A: b\x00c\r\n\r\n", 400},
	{"long method", strings.Repeat("A", 100) + " / HTTP/1.1\r\n" + hostLine + "\r\n", 501},
	{"long target", "GET /" + strings.Repeat("a", 20000) + " HTTP/1.1\r\n" + hostLine + "\r\n", 414},
	{"long name", line + hostLine + strings.Repeat("A", 300) + ": b\r\n\r\n", 431},
	{"large head", line + hostLine + strings.Repeat("X-Filler: "+strings.Repeat("f", 1000)+"\r\n", 300) + "\r\n", 431},
	{"two lengths", postLine + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde", 400},
	{"signed length", postLine + "Content-Length: +5\r\n\r\nabcde", 400},
	{"length and chunks", postLine + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	{"other coding", postLine + "Transfer-Encoding: gzip, chunked\r\n\r\n", 501},
	{"other expectation", postLine + "Expect: a miracle\r\nContent-Length: 5\r\n\r\n", 417},
	{"no chunk size", inChunks + "xyz\r\n", 400},
	{"negative chunk size", inChunks + "-1\r\n", 400},
	{"huge chunk size", inChunks + "fffffffffffffffff\r\n", 400},
	{"chunk longer than said", inChunks + "3\r\nabcdef\r\n0\r\n\r\n", 400},
	{"chunk shorter than said", inChunks + "5\r\nabc\r\n0\r\n\r\n", 400},
	{"expensive chunks", inChunks + strings.Repeat("1;"+strings.Repeat("e", 1000)+"\r\na\r\n", 40), 400},
	{"long trailer", inChunks + "0\r\n" + strings.Repeat("X-Filler: "+strings.Repeat("f", 1000)+"\r\n", 20) + "\r\n", 431},
	{"far too much behind", "GET\r\n" + strings.Repeat("more and more of it\r\n", 20000), 400},
}

// beBroken sends nonsense, or what chance has made of a good request.
func beBroken(c *client) {
	conn, ok := c.dial(0)
	if !ok {
		return
	}
	defer conn.Close()
	switch c.random.IntN(6) {
	case 0:
		c.sendGarbage(conn)
	case 1:
		c.sendMutation(conn)
	case 2:
		c.sendCut(conn)
	default:
		c.sendNonsense(conn, &nonsenses[c.random.IntN(len(nonsenses))])
	}
	c.pace(c.between(0, 100*time.Millisecond))
}

// sendNonsense sends some good requests and then something that is refused: all
// answers have to come, in order, and then the end of the connection.
func (c *client) sendNonsense(conn *conn, n *nonsense) {
	var raw []byte
	good := make([]request, c.random.IntN(4))
	for i := range good {
		good[i] = c.get("/hello", want{text: helloText})
		raw = append(raw, good[i].raw...)
	}
	raw = append(raw, n.bytes...)
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(raw)
		sent <- err
	}()
	var err error
	for i := range good {
		if _, err = conn.readAnswer(&good[i].want); err != nil {
			err = fmt.Errorf("good request %d of %d before it: %w", i+1, len(good), err)
			break
		}
	}
	status := 0
	if err == nil {
		status, err = conn.readRefusal()
	}
	if err == nil && status != n.status {
		err = fmt.Errorf("status %d, want %d", status, n.status)
	}
	conn.Close()
	<-sent
	c.checkRefused(err, "%s: %v", n.name, err)
}

// sendGarbage sends random bytes.
func (c *client) sendGarbage(conn *conn) {
	garbage := make([]byte, 1+c.size(5000))
	for i := range garbage {
		garbage[i] = byte(c.random.Uint32())
	}
	c.sendAndSee(conn, garbage, "random bytes")
}

// sendMutation changes bytes of a good request.
func (c *client) sendMutation(conn *conn) {
	raw := c.request(2000).raw
	for range 1 + c.random.IntN(4) {
		switch i := c.random.IntN(len(raw)); c.random.IntN(3) {
		case 0:
			raw[i] = byte(c.random.Uint32())
		case 1:
			raw = append(raw[:i:i], raw[min(i+1+c.random.IntN(5), len(raw)):]...)
		default:
			raw = append(raw[:i:i], append([]byte("\r\n\x00:;, /0")[c.random.IntN(9):], raw[i:]...)...)
		}
		if len(raw) == 0 {
			break
		}
	}
	c.sendAndSee(conn, raw, "a changed request")
}

// sendCut sends the beginning of a good request and then an end of file.
func (c *client) sendCut(conn *conn) {
	r := c.request(100 << 10)
	c.sendAndSee(conn, r.raw[:1+c.random.IntN(len(r.raw)-1)], "a cut request")
}

// sendAndSee sends bytes that may be anything, and the end of file. Answers may
// come or not; what comes has to be answers, and the end has to come.
func (c *client) sendAndSee(conn *conn, raw []byte, name string) {
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(raw)
		if err == nil {
			err = conn.CloseWrite()
		}
		sent <- err
	}()
	var err error
	for err == nil {
		var response *http.Response
		if response, err = conn.readHead(http.MethodGet); err == nil {
			if response.ContentLength > 0 && strings.HasPrefix(string(raw), http.MethodHead) {
				break // the answer to a HEAD has no body: what follows is not to be told apart
			}
			_, err = io.Copy(io.Discard, response.Body)
			err = cut(err)
		}
	}
	conn.Close()
	<-sent
	if isClosed(err) {
		err = nil
	}
	c.checkRefused(err, "%s (%.60q): %v", name, raw, err)
}
