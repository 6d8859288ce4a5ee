package catamount_test

import (
	"slices"
	"strings"
)

// request joins a request line and fields, and ends the head.
func request(lines ...string) string { return strings.Join(lines, "\r\n") + "\r\n\r\n" }

const (
	get11 = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
	// smuggled is what nobody must take for a request of its own.
	smuggled = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
)

// served is a case of one request that is answered.
func served(name, input, seen, answer string) wireCase {
	return wireCase{name: name, input: input, seen: []string{seen}, answers: []string{answer}}
}

// refused is a case of an input that the handler never sees.
func refused(name, status, input string) wireCase {
	return wireCase{name: name, input: input, answers: []string{status + " close"}}
}

// badBody is a case of a body that the server refuses while it buffers it. The
// handler of a streamed request reads so much of it, and then an error.
func badBody(name, status, input, read string) wireCase {
	c := refused(name, status, input)
	if c.streamed = "POST /"; read != "" {
		c.streamed += " [" + read + "]"
	}
	c.streamed += " " + status
	return c
}

// cutBody is one that ends before its time. Nobody can be told, but for the
// handler of a streamed request.
func cutBody(name, input, read string) wireCase {
	return wireCase{name: name, input: input, streamed: "POST / [" + read + "] unexpected EOF"}
}

// chunked is a request with such a body.
func chunked(body string) string {
	return request("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: chunked") + body
}

func withLength(value string) string {
	return request("POST / HTTP/1.1", "Host: h", "Content-Length: "+value)
}

var goodRequests = []wireCase{
	served("plain", get11, "GET /", "200 alive ok"),
	served("query", request("GET /a/b?c=d&e HTTP/1.1", "Host: h"), "GET /a/b?c=d&e", "200 alive ok"),
	served("escaped", request("GET /%41%2f%20 HTTP/1.1", "Host: h"), "GET /%41%2f%20", "200 alive ok"),
	served("two slashes", request("GET //x/y HTTP/1.1", "Host: h"), "GET //x/y", "200 alive ok"),
	served("empty query", request("GET /? HTTP/1.1", "Host: h"), "GET /?", "200 alive ok"),
	served("host with a port", request("GET / HTTP/1.1", "Host: example.com:80"), "GET / host=example.com:80", "200 alive ok"),
	served("IPv6 host", request("GET / HTTP/1.1", "Host: [::1]:80"), "GET / host=[::1]:80", "200 alive ok"),
	served("IPv6 host without brackets, as net/http takes it", request("GET / HTTP/1.1", "Host: ::1"), "GET / host=::1", "200 alive ok"),
	served("host with all marks", request("GET / HTTP/1.1", "Host: a-._~!$&'()*+,;=%41:0"), "GET / host=a-._~!$&'()*+,;=%41:0", "200 alive ok"),
	served("empty host", request("GET / HTTP/1.1", "Host:"), "GET / host=", "200 alive ok"),
	served("fields", request("GET / HTTP/1.1", "hOST:h", "X-Empty:", "X-Spaces:  \t a \t b  ", "X-Text: \xe4\xf6", "!#$%&'*+-.^_`|~9: x"), "GET /", "200 alive ok"),
	served("lower-case method", request("get / HTTP/1.1", "Host: h"), "get /", "200 alive ok"),
	served("unknown method", request("BREW /pot HTTP/1.1", "Host: h"), "BREW /pot", "200 alive ok"),
	served("empty lines before", "\r\n\r\n"+get11, "GET /", "200 alive ok"),
	served("later minor version", request("GET / HTTP/1.9", "Host: h"), "GET /", "200 alive ok"),

	served("absolute form", request("GET http://other:81/x?y HTTP/1.1", "Host: h"), "GET http://other:81/x?y host=other:81", "200 alive ok"),
	served("absolute form without path", request("GET http://other HTTP/1.1", "Host: h"), "GET http://other host=other", "200 alive ok"),
	served("absolute form, https", request("GET HTTPS://other/ HTTP/1.1", "Host: h"), "GET HTTPS://other/ host=other", "200 alive ok"),
	served("authority form", request("CONNECT h:443 HTTP/1.1", "Host: h:443"), "CONNECT h:443 host=h:443", "200 alive ok"),
	served("path of CONNECT, as of net/rpc", request("CONNECT /x HTTP/1.1", "Host: h"), "CONNECT /x", "200 alive ok"),
	served("OPTIONS of a resource", request("OPTIONS / HTTP/1.1", "Host: h"), "OPTIONS /", "200 alive ok"),
	{name: "OPTIONS *", input: request("OPTIONS * HTTP/1.1", "Host: h"), answers: []string{"200 alive"}},

	served("close", request("GET / HTTP/1.1", "Host: h", "Connection: close"), "GET /", "200 close ok"),
	served("close in capitals", request("GET / HTTP/1.1", "Host: h", "Connection: CLOSE"), "GET /", "200 close ok"),
	served("close in a list", request("GET / HTTP/1.1", "Host: h", "Connection: te, close ,x"), "GET /", "200 close ok"),
	served("close in a second field", request("GET / HTTP/1.1", "Host: h", "Connection: te", "Connection: close"), "GET /", "200 close ok"),
	served("close wins", request("GET / HTTP/1.1", "Host: h", "Connection: keep-alive, close"), "GET /", "200 close ok"),
	served("no close", request("GET / HTTP/1.1", "Host: h", "Connection: closed, not-close, \"close\""), "GET /", "200 alive ok"),
	served("close by the handler", request("GET /close HTTP/1.1", "Host: h"), "GET /close", "200 close ok"),

	served("1.0", request("GET / HTTP/1.0"), "GET / host=", "1.0 200 close ok"),
	served("1.0 keep-alive", request("GET / HTTP/1.0", "Connection: Keep-Alive"), "GET / host=", "1.0 200 alive ok"),
	served("1.0 keep-alive in a list", request("GET / HTTP/1.0", "Connection: te, keep-alive"), "GET / host=", "1.0 200 alive ok"),
	served("1.0 close wins", request("GET / HTTP/1.0", "Connection: keep-alive, close"), "GET / host=", "1.0 200 close ok"),
	served("1.0 unknown length", request("GET /stream HTTP/1.0", "Connection: keep-alive", "Host: h"), "GET /stream", "1.0 200 until-close close abcd"),
	served("1.0 body", request("POST / HTTP/1.0", "Content-Length: 5", "Host: h")+"hello", "POST / [hello]", "1.0 200 close ok"),
	served("1.0 HEAD", request("HEAD / HTTP/1.0", "Connection: keep-alive", "Host: h"), "HEAD /", "1.0 200 length=2 alive"),
	served("1.0 204", request("GET /204 HTTP/1.0", "Connection: keep-alive", "Host: h"), "GET /204", "1.0 204 none alive"),

	served("empty answer", request("GET /none HTTP/1.1", "Host: h"), "GET /none", "200 alive"),
	served("stream", request("GET /stream HTTP/1.1", "Host: h"), "GET /stream", "200 chunked alive abcd"),
	served("HEAD", request("HEAD / HTTP/1.1", "Host: h"), "HEAD /", "200 length=2 alive"),
	served("204", request("GET /204 HTTP/1.1", "Host: h"), "GET /204", "204 none alive"),
	served("HEAD 204", request("HEAD /204 HTTP/1.1", "Host: h"), "HEAD /204", "204 none alive"),
	served("304", request("GET /304 HTTP/1.1", "Host: h"), "GET /304", "304 none alive"),

	served("body", withLength("5")+"hello", "POST / [hello]", "200 alive ok"),
	served("body of GET", request("GET / HTTP/1.1", "Host: h", "Content-Length: 5")+"hello", "GET / [hello]", "200 alive ok"),
	served("empty body", withLength("0"), "POST /", "200 alive ok"),
	served("leading zeros of a length", withLength("0005")+"hello", "POST / [hello]", "200 alive ok"),
	served("body at the limit", withLength("100")+strings.Repeat("x", 100), "POST / ["+strings.Repeat("x", 100)+"]", "200 alive ok"),
	served("chunks", chunked("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"), "POST / [hello world]", "200 alive ok"),
	served("chunks in odd forms", chunked("00000005;a;b=\"c;d\" ; e\r\nhello\r\nA\r\n0123456789\r\n000;x\r\n\r\n"), "POST / [hello0123456789]", "200 alive ok"),
	served("no chunks", chunked("0\r\n\r\n"), "POST /", "200 alive ok"),
	served("trailers", chunked("5\r\nhello\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\n"), "POST / [hello]", "200 alive ok"),
	served("coding in capitals", request("POST / HTTP/1.1", "Host: h", "Transfer-Encoding:\t CHUNKED")+"1\r\nx\r\n0\r\n\r\n", "POST / [x]", "200 alive ok"),
	served("chunks at the limit", chunked("64\r\n"+strings.Repeat("x", 100)+"\r\n0\r\n\r\n"), "POST / ["+strings.Repeat("x", 100)+"]", "200 alive ok"),
	served("underscored framing is none", request("POST / HTTP/1.1", "Host: h", "Content_Length: 9", "Transfer_Encoding: chunked", "Content-Length: 2")+"ok", "POST / [ok]", "200 alive ok"),

	served("expectation met by sending", request("POST / HTTP/1.1", "Host: h", "Expect: 100-continue", "Content-Length: 5")+"hello", "POST / [hello]", "200 alive ok"),
	served("expectation in capitals", request("POST / HTTP/1.1", "Host: h", "Expect: 100-CONTINUE", "Transfer-Encoding: chunked")+"0\r\n\r\n", "POST /", "200 alive ok"),
	served("expectation twice", request("POST / HTTP/1.1", "Host: h", "Expect: 100-continue", "Expect: 100-continue", "Content-Length: 2")+"ok", "POST / [ok]", "200 alive ok"),
	served("expectation twice in a list", request("POST / HTTP/1.1", "Host: h", "Expect: 100-continue, 100-Continue,", "Content-Length: 2")+"ok", "POST / [ok]", "200 alive ok"),
	served("expectation without a body", request("GET / HTTP/1.1", "Host: h", "Expect: 100-continue"), "GET /", "200 alive ok"),
	served("expectation of 1.0", request("POST / HTTP/1.0", "Host: h", "Expect: 100-continue", "Content-Length: 2")+"ok", "POST / [ok]", "1.0 200 close ok"),
	served("expectation of 1.0, kept alive", request("POST / HTTP/1.0", "Host: h", "Connection: keep-alive", "Expect: 100-continue", "Content-Length: 2")+"ok", "POST / [ok]", "1.0 200 alive ok"),
	refused("unknown expectation", "417", request("POST / HTTP/1.1", "Host: h", "Expect: 200-ok", "Content-Length: 2")+"ok"),
	refused("unknown expectation beside the known one", "417", request("POST / HTTP/1.1", "Host: h", "Expect: 100-continue, gold", "Content-Length: 2")+"ok"),
	refused("unknown expectation without a body", "417", request("GET / HTTP/1.1", "Host: h", "Expect: gold")),

	// Complete heads and bodies are awaited; an end of file is answered with one.
	{name: "half a head", input: "GET / HTTP/1.1\r\nHost: h\r\n"},
	cutBody("half a body", withLength("5")+"hel", "hel"),
	cutBody("half a chunk", chunked("5\r\nhel"), "hel"),
	cutBody("no last chunk", chunked("5\r\nhello\r\n"), "hello"),
	cutBody("half a last chunk", chunked("5\r\nhello\r\n0\r\n"), "hello"),
	{name: "empty lines only", input: "\r\n\r\n"},
}

var pipelines = []wireCase{
	{name: "two", input: get11 + request("GET /2 HTTP/1.1", "Host: h"), seen: []string{"GET /", "GET /2"}, answers: []string{"200 alive ok", "200 alive ok"}},
	{name: "sixteen", input: strings.Repeat(get11, 16), seen: slices.Repeat([]string{"GET /"}, 16), answers: slices.Repeat([]string{"200 alive ok"}, 16)},
	{name: "body, chunks, head", input: withLength("5") + "hello" + chunked("1\r\nx\r\n0\r\n\r\n") + request("HEAD / HTTP/1.1", "Host: h") + get11,
		seen: []string{"POST / [hello]", "POST / [x]", "HEAD /", "GET /"}, answers: []string{"200 alive ok", "200 alive ok", "200 length=2 alive", "200 alive ok"}},
	{name: "empty lines between", input: get11 + "\r\n" + withLength("2") + "ok\r\n" + get11, seen: []string{"GET /", "POST / [ok]", "GET /"}, answers: []string{"200 alive ok", "200 alive ok", "200 alive ok"}},
	{name: "framings in turn", input: request("GET /stream HTTP/1.1", "Host: h") + request("GET /204 HTTP/1.1", "Host: h") + request("GET /none HTTP/1.1", "Host: h") + get11,
		seen: []string{"GET /stream", "GET /204", "GET /none", "GET /"}, answers: []string{"200 chunked alive abcd", "204 none alive", "200 alive", "200 alive ok"}},
	{name: "close is the last", input: request("GET / HTTP/1.1", "Host: h", "Connection: close") + smuggled, seen: []string{"GET /"}, answers: []string{"200 close ok"}, whole: true},
	{name: "close by the handler is the last", input: request("GET /close HTTP/1.1", "Host: h") + smuggled, seen: []string{"GET /close"}, answers: []string{"200 close ok"}},
	{name: "1.0 is the last", input: request("GET / HTTP/1.0", "Host: h") + smuggled, seen: []string{"GET /"}, answers: []string{"1.0 200 close ok"}, whole: true},
	{name: "1.0 kept alive, then 1.1", input: request("GET / HTTP/1.0", "Host: h", "Connection: keep-alive") + get11, seen: []string{"GET /", "GET /"}, answers: []string{"1.0 200 alive ok", "200 alive ok"}},
	{name: "close behind", input: get11 + request("GET / HTTP/1.1", "Host: h", "Connection: keep-alive", "Connection: Close") + smuggled, seen: []string{"GET /", "GET /"}, answers: []string{"200 alive ok", "200 close ok"}, whole: true},
	{name: "expectation behind", input: get11 + request("POST / HTTP/1.1", "Host: h", "Expect: gold", "Content-Length: 2") + "ok" + smuggled, seen: []string{"GET /"}, answers: []string{"200 alive ok", "417 close"}},
	{name: "large body behind", input: get11 + withLength("101") + strings.Repeat("x", 101) + smuggled, seen: []string{"GET /"}, answers: []string{"200 alive ok", "413 close"}},
	{name: "upgrade that nobody takes", input: request("GET / HTTP/1.1", "Host: h", "Connection: Upgrade", "Upgrade: websocket") + get11, seen: []string{"GET /", "GET /"}, answers: []string{"200 alive ok", "200 alive ok"}},
	{name: "bad trailer behind", input: chunked("5\r\nhello\r\n0\r\nX y: z\r\n\r\n") + smuggled, answers: []string{"400 close"}, streamed: "POST / [hello] 400"},
	{name: "garbage behind", input: get11 + "\x00\x01garbage\r\n\r\n" + smuggled, seen: []string{"GET /"}, answers: []string{"200 alive ok", "400 close"}},
	{name: "more body than announced", input: withLength("5") + "hello, world\r\n\r\n" + smuggled, seen: []string{"POST / [hello]"}, answers: []string{"200 alive ok", "400 close"}},
	{name: "part of a request behind", input: get11 + "GET / HT", seen: []string{"GET /"}, answers: []string{"200 alive ok"}},
	{name: "bad body behind", input: get11 + chunked("x\r\n"), seen: []string{"GET /"}, answers: []string{"200 alive ok", "400 close"}, streamed: "POST / 400"},
	{name: "cut body behind", input: get11 + withLength("5") + "hel", seen: []string{"GET /"}, answers: []string{"200 alive ok"}, streamed: "POST / [hel] unexpected EOF"},
}

// smuggling: two servers in a row must not read the bytes in two ways.
var smuggling = []wireCase{
	refused("length and coding", "400", request("POST / HTTP/1.1", "Host: h", "Content-Length: 6", "Transfer-Encoding: chunked")+"0\r\n\r\n"+smuggled),
	refused("coding and length", "400", request("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: chunked", "Content-Length: 6")+"0\r\n\r\n"+smuggled),
	refused("coding and no length", "400", request("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: chunked", "Content-Length:")+"0\r\n\r\n"+smuggled),
	refused("coding of 1.0", "400", request("POST / HTTP/1.0", "Host: h", "Transfer-Encoding: chunked")+"0\r\n\r\n"+smuggled),
	refused("coding of 1.0, keep-alive", "400", request("POST / HTTP/1.0", "Host: h", "Connection: keep-alive", "Transfer-Encoding: chunked")+"0\r\n\r\n"+smuggled),
	refused("unknown coding", "501", request("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: xchunked")+"0\r\n\r\n"+smuggled),
	refused("identity", "501", request("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: identity")+"0\r\n\r\n"+smuggled),
	refused("chunked not last", "400", request("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: chunked, identity")+"0\r\n\r\n"+smuggled),
	refused("unknown coding behind chunked", "400", request("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: chunked, gzip")+"0\r\n\r\n"+smuggled),
	refused("another coding before", "501", request("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: gzip, chunked")+"0\r\n\r\n"+smuggled),
	refused("chunked twice", "400", request("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: chunked, chunked")+"0\r\n\r\n"+smuggled),
	refused("chunked in two fields", "400", request("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked")+"0\r\n\r\n"+smuggled),
	refused("identity in a second field", "400", request("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: chunked", "Transfer-Encoding: identity")+"0\r\n\r\n"+smuggled),
	refused("empty coding", "400", request("POST / HTTP/1.1", "Host: h", "Transfer-Encoding:")+"0\r\n\r\n"+smuggled),
	refused("empty element", "400", request("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: ,chunked")+"0\r\n\r\n"+smuggled),
	refused("quoted coding", "501", request("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: \"chunked\"")+"0\r\n\r\n"+smuggled),
	refused("coding with a parameter", "501", request("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: chunked;q=1")+"0\r\n\r\n"+smuggled),
	refused("vertical tab before the coding", "400", request("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: \x0bchunked")+"0\r\n\r\n"+smuggled),
	refused("space before the colon of the coding", "400", request("POST / HTTP/1.1", "Host: h", "Content-Length: 5", "Transfer-Encoding : chunked")+"0\r\n\r\n"+smuggled),
	refused("tab before the colon of the length", "400", request("POST / HTTP/1.1", "Host: h", "Content-Length\t: 5")+smuggled),
	refused("coding behind a bare LF", "400", request("POST / HTTP/1.1", "Host: h", "X: y\nTransfer-Encoding: chunked")+"0\r\n\r\n"+smuggled),
	refused("coding behind a bare CR", "400", request("POST / HTTP/1.1", "Host: h", "X: y\rTransfer-Encoding: chunked")+"0\r\n\r\n"+smuggled),
	refused("folded coding", "400", request("POST / HTTP/1.1", "Host: h", "Transfer-Encoding:", " chunked")+"0\r\n\r\n"+smuggled),
	refused("NUL in the name", "400", request("POST / HTTP/1.1", "Host: h", "Transfer\x00-Encoding: chunked")+"0\r\n\r\n"+smuggled),

	refused("same length twice", "400", request("POST / HTTP/1.1", "Host: h", "Content-Length: 5", "Content-Length: 5")+"hello"+smuggled),
	refused("two lengths", "400", request("POST / HTTP/1.1", "Host: h", "Content-Length: 5", "Content-Length: 0")+"hello"+smuggled),
	refused("same length twice in a list", "400", withLength("5, 5")+"hello"+smuggled),
	refused("two lengths in a list", "400", withLength("5,0")+"hello"+smuggled),
	refused("signed length", "400", withLength("+5")+"hello"+smuggled),
	refused("negative length", "400", withLength("-5")+smuggled),
	refused("hexadecimal length", "400", withLength("0x5")+"hello"+smuggled),
	refused("length with a space", "400", withLength("5 5")+"hello"+smuggled),
	refused("length with a point", "400", withLength("5.0")+"hello"+smuggled),
	refused("length with an underscore", "400", withLength("1_0")+"hello"+smuggled),
	refused("empty length", "400", withLength("")+smuggled),
	refused("quoted length", "400", withLength("\"5\"")+"hello"+smuggled),
	refused("Arabic length", "400", withLength("\xd9\xa5")+"hello"+smuggled),
	refused("length beyond 64 bits", "400", withLength("18446744073709551621")+"hello"+smuggled),
	refused("length beyond 63 bits", "400", withLength("9223372036854775808")+smuggled),
}

var badHeads = []wireCase{
	refused("no host", "400", request("GET / HTTP/1.1")),
	refused("no host, absolute form", "400", request("GET http://h/ HTTP/1.1")),
	refused("two hosts", "400", request("GET / HTTP/1.1", "Host: h", "Host: h")),
	refused("two hosts of 1.0", "400", request("GET / HTTP/1.0", "Host: h", "host: other")),
	refused("host with a space", "400", request("GET / HTTP/1.1", "Host: a b")),
	refused("host with a path", "400", request("GET / HTTP/1.1", "Host: h/x")),
	refused("host with a user", "400", request("GET / HTTP/1.1", "Host: u@h")),
	refused("host with two ports", "400", request("GET / HTTP/1.1", "Host: h:80:80")),
	refused("host with a name for a port", "400", request("GET / HTTP/1.1", "Host: h:x")),
	refused("host with half an escape", "400", request("GET / HTTP/1.1", "Host: h%4")),
	refused("port without a host", "400", request("GET / HTTP/1.1", "Host: :80")),
	refused("host with an open bracket", "400", request("GET / HTTP/1.1", "Host: [::1")),
	refused("name in brackets", "400", request("GET / HTTP/1.1", "Host: [h]:80")),
	refused("name behind brackets", "400", request("GET / HTTP/1.1", "Host: [::1]h")),
	refused("bad host beside an absolute form", "400", request("GET http://h/ HTTP/1.1", "Host: h:80:80")),

	refused("bare LF after the request line", "400", "GET / HTTP/1.1\nHost: h\r\n\r\n"),
	refused("bare LF everywhere", "400", "GET / HTTP/1.1\nHost: h\n\n"),
	refused("bare LF after a field", "400", "GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n"),
	refused("bare LF at the end", "400", "GET / HTTP/1.1\r\nHost: h\r\n\n"),
	refused("bare CR in a value", "400", request("GET / HTTP/1.1", "Host: h", "X: a\rb")),
	refused("bare CR at the end", "400", "GET / HTTP/1.1\r\nHost: h\r\n\rGET"),
	refused("bare CR before", "400", "\rGET / HTTP/1.1\r\nHost: h\r\n\r\n"),
	refused("bare LF before", "400", "\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"),
	refused("many empty lines before", "400", strings.Repeat("\r\n", 9)+get11),
	refused("NUL in a value", "400", request("GET / HTTP/1.1", "Host: h", "X: a\x00b")),
	refused("DEL in a value", "400", request("GET / HTTP/1.1", "Host: h", "X: a\x7fb")),
	refused("folded field", "400", request("GET / HTTP/1.1", "Host: h", "X: a", " b")),
	refused("folded by a tab", "400", request("GET / HTTP/1.1", "Host: h", "X: a", "\tb")),
	refused("space before the first field", "400", request("GET / HTTP/1.1", " Host: h")),
	refused("space before the colon", "400", request("GET / HTTP/1.1", "Host : h")),
	refused("no name", "400", request("GET / HTTP/1.1", "Host: h", ": x")),
	refused("no colon", "400", request("GET / HTTP/1.1", "Host: h", "X")),
	refused("no token", "400", request("GET / HTTP/1.1", "Host: h", "X(y): z")),
	refused("name beyond ASCII", "400", request("GET / HTTP/1.1", "Host: h", "X\xe4: z")),

	refused("no version", "400", "GET /\r\n\r\n"),
	refused("empty version", "400", "GET / \r\n\r\n"),
	refused("lower-case version", "400", request("GET / http/1.1", "Host: h")),
	refused("short version", "400", request("GET / HTTP/1", "Host: h")),
	refused("long version", "400", request("GET / HTTP/1.10", "Host: h")),
	refused("signed version", "400", request("GET / HTTP/+1.1", "Host: h")),
	refused("space behind the version", "400", request("GET / HTTP/1.1 ", "Host: h")),
	refused("other protocol", "400", request("GET / SPDY/1.1", "Host: h")),
	refused("0.9", "505", request("GET / HTTP/0.9", "Host: h")),
	refused("2.0", "505", request("GET / HTTP/2.0", "Host: h")),
	refused("3.0", "505", request("GET / HTTP/3.0", "Host: h")),

	refused("no method", "400", request(" / HTTP/1.1", "Host: h")),
	refused("method with a parenthesis", "400", request("G(ET / HTTP/1.1", "Host: h")),
	refused("two spaces", "400", request("GET  / HTTP/1.1", "Host: h")),
	refused("tab between", "400", request("GET\t/ HTTP/1.1", "Host: h")),
	refused("space in the target", "400", request("GET /a b HTTP/1.1", "Host: h")),
	refused("control in the target", "400", request("GET /a\x01b HTTP/1.1", "Host: h")),
	refused("fragment", "400", request("GET /a#b HTTP/1.1", "Host: h")),
	refused("bad escape", "400", request("GET /%zz HTTP/1.1", "Host: h")),
	refused("relative target", "400", request("GET a HTTP/1.1", "Host: h")),
	refused("asterisk of GET", "400", request("GET * HTTP/1.1", "Host: h")),
	refused("absolute form without a host", "400", request("GET http:///x HTTP/1.1", "Host: h")),
	refused("absolute form with a user", "400", request("GET http://u:p@h/x HTTP/1.1", "Host: h")),
	refused("CONNECT without a port", "400", request("CONNECT h HTTP/1.1", "Host: h")),
	refused("authority of GET", "400", request("GET h:80 HTTP/1.1", "Host: h")),

	refused("TLS", "400", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
	refused("SSH", "400", "SSH-2.0-OpenSSH_9.9\r\n"),
	refused("JSON", "400", `{"hello": "world"}`+"\r\n\r\n"),
	refused("SMTP", "400", "EHLO h\r\n"),
}

var badBodies = []wireCase{
	badBody("no chunk size", "400", chunked("\r\nhello\r\n0\r\n\r\n"), ""),
	badBody("chunk size in words", "400", chunked("five\r\nhello\r\n0\r\n\r\n"), ""),
	badBody("prefixed chunk size", "400", chunked("0x5\r\nhello\r\n0\r\n\r\n"), ""),
	badBody("signed chunk size", "400", chunked("+5\r\nhello\r\n0\r\n\r\n"), ""),
	badBody("negative chunk size", "400", chunked("-5\r\nhello\r\n0\r\n\r\n"), ""),
	badBody("space before the chunk size", "400", chunked(" 5\r\nhello\r\n0\r\n\r\n"), ""),
	badBody("space behind the chunk size", "400", chunked("5 \r\nhello\r\n0\r\n\r\n"), ""),
	badBody("chunk size beyond 64 bits", "400", chunked("10000000000000005\r\nhello\r\n0\r\n\r\n"), ""),
	badBody("chunk size beyond 63 bits", "400", chunked("8000000000000000\r\nhello\r\n0\r\n\r\n"), ""),
	badBody("bare LF behind the chunk size", "400", chunked("5\nhello\r\n0\r\n\r\n"), ""),
	badBody("bare CR behind the chunk size", "400", chunked("5\rhello\r\n0\r\n\r\n"), ""),
	badBody("bare LF behind an extension", "400", chunked("5;a\nhello\r\n0\r\n\r\n"), ""),
	badBody("control in an extension", "400", chunked("5;a\x00\r\nhello\r\n0\r\n\r\n"), ""),
	badBody("extension without a name", "400", chunked("5;\r\nhello\r\n0\r\n\r\n"), ""),
	badBody("open quotes in an extension", "400", chunked("5;a=\"b\r\nhello\r\n0\r\n\r\n"), ""),
	badBody("long extension", "400", chunked("5;"+strings.Repeat("a", 100)+"\r\nhello\r\n0\r\n\r\n"), ""),
	badBody("no end of a chunk", "400", chunked("5\r\nhello0\r\n\r\n"+smuggled), "hello"),
	badBody("bare LF at the end of a chunk", "400", chunked("5\r\nhello\n0\r\n\r\n"), "hello"),
	badBody("chunk longer than its size", "400", chunked("5\r\nhello!\r\n0\r\n\r\n"), "hello"),
	badBody("bare LF at the end", "400", chunked("0\r\n\n"+smuggled), ""),
	badBody("bare LF behind a trailer", "400", chunked("0\r\nX: y\n\r\n"+smuggled), ""),
	badBody("folded trailer", "400", chunked("0\r\nX: y\r\n z\r\n\r\n"), ""),
	badBody("trailer without a name", "400", chunked("0\r\n: y\r\n\r\n"), ""),
	badBody("trailer without a colon", "400", chunked("0\r\nGET /smuggled HTTP/1.1\r\n\r\n"), ""),
	refused("trailer announces framing", "400", request("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: chunked", "Trailer: Content-Length")+"0\r\nContent-Length: 5\r\n\r\n"),
}

var overLimits = []wireCase{
	refused("long path", "414", request("GET /"+strings.Repeat("a", 300)+" HTTP/1.1", "Host: h")),
	refused("long query", "414", request("GET /?"+strings.Repeat("a", 300)+" HTTP/1.1", "Host: h")),
	refused("long target", "414", request("GET /"+strings.Repeat("a", 2000)+" HTTP/1.1", "Host: h")),
	refused("long method", "501", request(strings.Repeat("A", 100)+" / HTTP/1.1", "Host: h")),
	refused("long name", "431", request("GET / HTTP/1.1", "Host: h", strings.Repeat("a", 60)+": x")),
	refused("long value", "431", request("GET / HTTP/1.1", "Host: h", "X: "+strings.Repeat("a", 1200))),
	refused("many fields", "431", request(append([]string{"GET / HTTP/1.1", "Host: h"}, slices.Repeat([]string{"X: y"}, 30)...)...)),
	refused("long head", "431", request(append([]string{"GET / HTTP/1.1", "Host: h"}, slices.Repeat([]string{"X: " + strings.Repeat("y", 900)}, 6)...)...)),
	refused("large body", "413", withLength("101")+strings.Repeat("x", 101)),
	refused("large body with an expectation", "413", request("POST / HTTP/1.1", "Host: h", "Expect: 100-continue", "Content-Length: 101")),
	badBody("large chunks", "413", chunked("32\r\n"+strings.Repeat("x", 50)+"\r\n33\r\n"+strings.Repeat("x", 51)+"\r\n0\r\n\r\n"), strings.Repeat("x", 100)),
	badBody("large trailers", "431", chunked("0\r\nX: "+strings.Repeat("y", 300)+"\r\n\r\n"), ""),
}
