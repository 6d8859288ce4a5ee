package parser

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"testing"
)

// parsed is what a Head says, without the buffer it points into.
type parsed struct {
	N                                 int
	Method, Target, Path, Query, Host string
	HasHost                           bool
	Form                              TargetForm
	Version                           string
	Fields                            []string // "Name: value"
	ContentLength                     int64
	Chunked, Close, KeepAlive         bool
	Upgrade, Continue, Other          bool
}

func snapshot(h *Head, buf []byte, n int) parsed {
	in := func(s Span) string { return string(s.In(buf)) }
	p := parsed{
		N:      n,
		Method: in(h.Method), Target: in(h.Target), Path: in(h.Path), Query: in(h.Query), Host: in(h.Host),
		HasHost: h.HasHost, Form: h.Form, Version: fmt.Sprintf("%d.%d", h.Major, h.Minor),
		ContentLength: h.ContentLength, Chunked: h.Chunked, Close: h.Close, KeepAlive: h.KeepAlive,
		Upgrade: h.Upgrade, Continue: h.ExpectContinue, Other: h.ExpectOther,
	}
	for _, f := range h.Fields {
		p.Fields = append(p.Fields, in(f.Name)+": "+in(f.Value))
		if want := lookupKnown(f.Name.In(buf)); f.Known != want {
			p.Fields = append(p.Fields, fmt.Sprintf("known as %v, not %v", f.Known, want))
		}
	}
	return p
}

// parseAt parses raw, of which it shows h the prefixes that end at cuts, then
// all of it. Each prefix lies elsewhere, with nothing behind it, and is spoiled
// after use.
func parseAt(h *Head, raw string, limits *Limits, cuts ...int) (parsed, error) {
	h.Reset()
	for _, cut := range append(slices.Clone(cuts), len(raw)) {
		buf := slices.Clip([]byte(raw[:cut]))
		n, err := h.Parse(buf, limits)
		if err == ErrIncomplete {
			for i := range buf {
				buf[i] = 0
			}
			continue
		}
		if n2, err2 := h.Parse(buf, limits); n2 != n || err2 != err {
			return parsed{}, fmt.Errorf("second call returns %d, %v after %d, %v", n2, err2, n, err)
		}
		if err != nil {
			return parsed{N: n}, err
		}
		return snapshot(h, buf, n), nil
	}
	return parsed{}, ErrIncomplete
}

// everyPrefix are the cuts for a byte at a time.
func everyPrefix(raw string) []int {
	cuts := make([]int, len(raw))
	for i := range cuts {
		cuts[i] = i
	}
	return cuts
}

// parseEveryWay parses raw whole, byte by byte, and cut in two at every place,
// and returns the one result all of these must have.
func parseEveryWay(t *testing.T, raw string, limits *Limits) (parsed, error) {
	t.Helper()
	var h Head
	want, wantErr := parseAt(&h, raw, limits)
	same := func(how string, got parsed, err error) {
		t.Helper()
		if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(err, wantErr) {
			t.Fatalf("%s: %+v, %v\nwhole: %+v, %v\nrequest: %q", how, got, err, want, wantErr, raw)
		}
	}
	got, err := parseAt(&h, raw, limits, everyPrefix(raw)...)
	same("byte by byte", got, err)
	for cut := range len(raw) {
		got, err := parseAt(&h, raw, limits, cut)
		same(fmt.Sprintf("cut at %d", cut), got, err)
	}
	return want, wantErr
}

const (
	get  = "GET / HTTP/1.1\r\n"
	host = "Host: example.com\r\n"
)

// request is what get + host + "\r\n" parses to, changed by edit.
func request(edit func(p *parsed)) parsed {
	p := parsed{
		Method: "GET", Target: "/", Path: "/", Version: "1.1", ContentLength: -1,
		Host: "example.com", HasHost: true, Fields: []string{"Host: example.com"},
	}
	if edit != nil {
		edit(&p)
	}
	return p
}

func target(method, target, path, query string, form TargetForm) parsed {
	return request(func(p *parsed) {
		p.Method, p.Target, p.Path, p.Query, p.Form = method, target, path, query, form
	})
}

// fields adds field lines to those of request.
func fields(edit func(p *parsed), lines ...string) parsed {
	p := request(edit)
	p.Fields = append(p.Fields, lines...)
	return p
}

var goodRequests = []struct {
	name, raw string
	limits    Limits
	want      parsed
}{
	{name: "plain", raw: get + host + "\r\n", want: request(nil)},
	{name: "four empty lines", raw: "\r\n\r\n\r\n\r\n" + get + host + "\r\n", want: request(nil)},
	{name: "HTTP/1.0 without fields", raw: "GET / HTTP/1.0\r\n\r\n",
		want: parsed{Method: "GET", Target: "/", Path: "/", Version: "1.0", ContentLength: -1}},
	{name: "HTTP/1.0 with a Host", raw: "GET / HTTP/1.0\r\n" + host + "\r\n",
		want: request(func(p *parsed) { p.Version = "1.0" })},
	{name: "HTTP/1.9", raw: "GET / HTTP/1.9\r\n" + host + "\r\n", want: request(func(p *parsed) { p.Version = "1.9" })},
	{name: "odd method", raw: "x!#$%&'*+-.^_`|~9 / HTTP/1.1\r\n" + host + "\r\n",
		want: request(func(p *parsed) { p.Method = "x!#$%&'*+-.^_`|~9" })},
	{name: "method of 32 bytes", raw: "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345 / HTTP/1.1\r\n" + host + "\r\n",
		want: request(func(p *parsed) { p.Method = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345" })},

	{name: "query", raw: "GET /a/b?c=d&e?f HTTP/1.1\r\n" + host + "\r\n",
		want: target("GET", "/a/b?c=d&e?f", "/a/b", "c=d&e?f", OriginForm)},
	{name: "empty query", raw: "GET /? HTTP/1.1\r\n" + host + "\r\n", want: target("GET", "/?", "/", "", OriginForm)},
	{name: "two slashes", raw: "GET //a HTTP/1.1\r\n" + host + "\r\n", want: target("GET", "//a", "//a", "", OriginForm)},
	{name: "UTF-8 and marks in the target", raw: "GET /\xc3\xa9!\"<>{}|\\^` HTTP/1.1\r\n" + host + "\r\n",
		want: target("GET", "/\xc3\xa9!\"<>{}|\\^`", "/\xc3\xa9!\"<>{}|\\^`", "", OriginForm)},
	{name: "high bytes at all places of a word", raw: "GET /\xbf\xff\xa0\xa3\x80\x9f\xbf\xff\xbe HTTP/1.1\r\n" + host + "\r\n",
		want: target("GET", "/\xbf\xff\xa0\xa3\x80\x9f\xbf\xff\xbe", "/\xbf\xff\xa0\xa3\x80\x9f\xbf\xff\xbe", "", OriginForm)},
	{name: "asterisk of an unknown method", raw: "FOO * HTTP/1.1\r\n" + host + "\r\n", want: target("FOO", "*", "", "", AsteriskForm)},
	{name: "asterisk", raw: "OPTIONS * HTTP/1.1\r\n" + host + "\r\n", want: target("OPTIONS", "*", "", "", AsteriskForm)},
	{name: "absolute", raw: "GET http://a.b:80/c?d HTTP/1.1\r\n" + host + "\r\n",
		want: target("GET", "http://a.b:80/c?d", "/c", "d", AbsoluteForm)},
	{name: "absolute without a path", raw: "GET svn+ssh-2.0://a HTTP/1.1\r\n" + host + "\r\n",
		want: target("GET", "svn+ssh-2.0://a", "", "", AbsoluteForm)},
	{name: "absolute with a query only", raw: "GET http://[::1]?d HTTP/1.1\r\n" + host + "\r\n",
		want: target("GET", "http://[::1]?d", "", "d", AbsoluteForm)},
	{name: "CONNECT", raw: "CONNECT a.b:443 HTTP/1.1\r\n" + host + "\r\n",
		want: target("CONNECT", "a.b:443", "", "", AuthorityForm)},
	{name: "CONNECT to IPv6 without a Host", raw: "CONNECT [2001:db8::1]:443 HTTP/1.1\r\n\r\n",
		want: parsed{Method: "CONNECT", Target: "[2001:db8::1]:443", Form: AuthorityForm, Version: "1.1", ContentLength: -1}},
	{name: "connect is another method", raw: "connect / HTTP/1.1\r\n" + host + "\r\n",
		want: request(func(p *parsed) { p.Method = "connect" })},
	{name: "preface of HTTP/2", raw: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		want: parsed{Method: "PRI", Target: "*", Form: AsteriskForm, Version: "2.0", ContentLength: -1}},
	{name: "PRI is a method", raw: "PRI /a HTTP/1.1\r\n" + host + "\r\n", want: target("PRI", "/a", "/a", "", OriginForm)},
	{name: "target as long as allowed", raw: "GET /a?bc HTTP/1.1\r\n" + host + "\r\n", limits: Limits{Target: 5, Path: 2, Query: 2},
		want: target("GET", "/a?bc", "/a", "bc", OriginForm)},
	{name: "no limits", raw: "GET /a?bc HTTP/1.1\r\n" + host + "\r\n",
		limits: Limits{-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, false},
		want:   target("GET", "/a?bc", "/a", "bc", OriginForm)},
	{name: "fragment where allowed", raw: "GET /a?b#c?d HTTP/1.1\r\n" + host + "\r\n", limits: Limits{Fragment: 3},
		want: target("GET", "/a?b#c?d", "/a", "b", OriginForm)},
	{name: "question mark in a fragment", raw: "GET /a#c?d HTTP/1.1\r\n" + host + "\r\n", limits: Limits{Fragment: 3},
		want: target("GET", "/a#c?d", "/a", "", OriginForm)},

	{name: "empty Host", raw: get + "Host:\r\n\r\n", want: request(func(p *parsed) { p.Host, p.Fields = "", []string{"Host: "} })},
	{name: "Host of spaces", raw: get + "hOST: \t \r\n\r\n", want: request(func(p *parsed) { p.Host, p.Fields = "", []string{"hOST: "} })},
	{name: "IPv6 Host", raw: get + "Host: [fe80::1%25eth0]:80\r\n\r\n",
		want: request(func(p *parsed) { p.Host, p.Fields = "[fe80::1%25eth0]:80", []string{"Host: [fe80::1%25eth0]:80"} })},
	{name: "whitespace around a value", raw: get + host + "A: \t b \tc\t \r\nD:e\r\n\r\n", want: fields(nil, "A: b \tc", "D: e")},
	{name: "empty values", raw: get + host + "A:\r\nB: \r\nContent-Type:\r\n\r\n", want: fields(nil, "A: ", "B: ", "Content-Type: ")},
	{name: "UTF-8 in a value", raw: get + host + "X: \xc3\xa9\x80\xff\r\n\r\n", want: fields(nil, "X: \xc3\xa9\x80\xff")},
	{name: "odd names", raw: get + host + "_a_b: 1\r\n!#$%&'*+-.^_`|~: 2\r\nX_Forwarded_For: 3\r\n\r\n",
		want: fields(nil, "_a_b: 1", "!#$%&'*+-.^_`|~: 2", "X_Forwarded_For: 3")},
	{name: "colons in a value", raw: get + host + "A::b:c\r\n\r\n", want: fields(nil, "A: :b:c")},
	{name: "repeated fields", raw: get + host + "Accept: a\r\naccept: b\r\n\r\n", want: fields(nil, "Accept: a", "accept: b")},
	{name: "fields as long as allowed", raw: get + "Host: abc\r\nFive5: 12\t \r\n\r\n",
		limits: Limits{HeaderName: 5, HeaderValue: 4, HeaderCount: 2, Head: 45},
		want:   request(func(p *parsed) { p.Host, p.Fields = "abc", []string{"Host: abc", "Five5: 12"} })},

	{name: "length", raw: get + host + "content-length: 0042 \r\n\r\n",
		want: fields(func(p *parsed) { p.ContentLength = 42 }, "content-length: 0042")},
	{name: "length of zero", raw: get + host + "Content-Length: 0\r\n\r\n",
		want: fields(func(p *parsed) { p.ContentLength = 0 }, "Content-Length: 0")},
	{name: "largest length", raw: get + host + "Content-Length: 9223372036854775807\r\n\r\n",
		want: fields(func(p *parsed) { p.ContentLength = 1<<63 - 1 }, "Content-Length: 9223372036854775807")},
	{name: "length as large as allowed", raw: get + host + "Content-Length: 7\r\n\r\n", limits: Limits{Body: 7},
		want: fields(func(p *parsed) { p.ContentLength = 7 }, "Content-Length: 7")},
	{name: "chunked", raw: get + host + "Transfer-Encoding: \tchunKED \r\n\r\n",
		want: fields(func(p *parsed) { p.Chunked = true }, "Transfer-Encoding: chunKED")},
	{name: "chunked with a trailer", raw: get + host + "Transfer-Encoding: chunked\r\nTrailer: Digest, ,x\r\n\r\n",
		want: fields(func(p *parsed) { p.Chunked = true }, "Transfer-Encoding: chunked", "Trailer: Digest, ,x")},
	{name: "bad trailer without a body", raw: get + host + "Trailer: Content-Length\r\n\r\n",
		want: fields(nil, "Trailer: Content-Length")},
	{name: "fields that only look like framing", raw: get + host + "Content_Length: x\r\nTransfer_Encoding: x\r\nTE: x\r\n\r\n",
		want: fields(nil, "Content_Length: x", "Transfer_Encoding: x", "TE: x")},

	{name: "close", raw: get + host + "Connection: close\r\n\r\n",
		want: fields(func(p *parsed) { p.Close = true }, "Connection: close")},
	{name: "keep-alive", raw: "GET / HTTP/1.0\r\n" + host + "connection:Keep-Alive\r\n\r\n",
		want: fields(func(p *parsed) { p.Version, p.KeepAlive = "1.0", true }, "connection: Keep-Alive")},
	{name: "connection list", raw: get + host + "Connection: ,TE , cLOSE\t,\"x\"\r\nConnection: Upgrade,Keep-Alive\r\n\r\n",
		want: fields(func(p *parsed) { p.Close, p.KeepAlive, p.Upgrade = true, true, true },
			"Connection: ,TE , cLOSE\t,\"x\"", "Connection: Upgrade,Keep-Alive")},
	{name: "options that only look alike",
		raw:  get + host + "Connection: closed, keep alive\r\nConnection: upgrad, upgrade2\r\nConnection: close keep-alive\r\n\r\n",
		want: fields(nil, "Connection: closed, keep alive", "Connection: upgrad, upgrade2", "Connection: close keep-alive")},

	{name: "100-continue", raw: get + host + "Expect: 100-Continue\r\n\r\n",
		want: fields(func(p *parsed) { p.Continue = true }, "Expect: 100-Continue")},
	{name: "100-continue in HTTP/1.0", raw: "GET / HTTP/1.0\r\n" + host + "Expect: 100-continue\r\n\r\n",
		want: fields(func(p *parsed) { p.Version = "1.0" }, "Expect: 100-continue")},
	{name: "another expectation", raw: get + host + "Expect: 100-continue, more\r\n\r\n",
		want: fields(func(p *parsed) { p.Continue, p.Other = true, true }, "Expect: 100-continue, more")},
	{name: "100-continue in a list", raw: get + host + "Expect: , 100-continue ,100-CONTINUE,\r\n\r\n",
		want: fields(func(p *parsed) { p.Continue = true }, "Expect: , 100-continue ,100-CONTINUE,")},
	{name: "list of no expectations", raw: get + host + "Expect: ,\r\n\r\n", want: fields(nil, "Expect: ,")},
	{name: "empty expectation", raw: get + host + "Expect: \r\n\r\n", want: fields(nil, "Expect: ")},
}

func TestGoodRequests(t *testing.T) {
	for _, test := range goodRequests {
		t.Run(test.name, func(t *testing.T) {
			limits := test.limits.WithDefaults()
			test.want.N = len(test.raw)
			if test.name == "preface of HTTP/2" {
				test.want.N -= len("SM\r\n\r\n")
			}
			for _, behind := range []string{"", "\r\n", "body or another request"} {
				got, err := parseEveryWay(t, test.raw+behind, &limits)
				if err != nil || !reflect.DeepEqual(got, test.want) {
					t.Errorf("got  %+v, %v\nwant %+v", got, err, test.want)
				}
			}
			// Not yet done a byte before the end.
			if _, err := parseAt(new(Head), test.raw[:test.want.N-1], &limits); err != ErrIncomplete {
				t.Errorf("without its last byte: %v", err)
			}
			// The same with limits that were not completed.
			if got, err := parseAt(new(Head), test.raw, &test.limits); err != nil || !reflect.DeepEqual(got, test.want) {
				t.Errorf("got  %+v, %v\nwant %+v", got, err, test.want)
			}
		})
	}
}

func TestRealRequests(t *testing.T) {
	for _, raw := range []string{wrkRequest, browser8Request, chromeRequest, headers30Request()} {
		got, err := parseEveryWay(t, raw, nil)
		if err != nil || got.N != len(raw) || len(got.Fields) != bytes.Count([]byte(raw), []byte("\r\n"))-2 {
			t.Errorf("%+v, %v for %q", got, err, raw)
		}
	}
}

func TestStarted(t *testing.T) {
	var h Head
	for _, test := range []struct {
		raw  string
		want bool
	}{{"", false}, {"\r", false}, {"\r\n", false}, {"\r\n\r", false}, {"\r\n\r\nG", true}} {
		if _, err := h.Parse([]byte(test.raw), nil); err != ErrIncomplete || h.Started() != test.want {
			t.Errorf("%q: %v, started %v", test.raw, err, h.Started())
		}
	}
	h.Reset()
	if h.Started() {
		t.Error("started after Reset")
	}
}

func TestResetDropsMuchRoom(t *testing.T) {
	var h Head
	for _, test := range []struct {
		fields int
		kept   bool
	}{{20, true}, {maxKeptFields * 4, false}} {
		raw := get + host + string(bytes.Repeat([]byte("a: b\r\n"), test.fields)) + "\r\n"
		h.Reset()
		if _, err := h.Parse([]byte(raw), nil); err != nil {
			t.Fatal(err)
		}
		h.Reset()
		if len(h.Fields) != 0 || (cap(h.Fields) > 0) != test.kept {
			t.Errorf("%d fields: room for %d kept", test.fields, cap(h.Fields))
		}
	}
}

func TestNoAllocations(t *testing.T) {
	limits := Limits{}.WithDefaults()
	for _, raw := range []string{wrkRequest, browser8Request, chromeRequest, headers30Request()} {
		var h Head
		buf := []byte(raw)
		allocs := testing.AllocsPerRun(100, func() {
			h.Reset()
			if _, err := h.Parse(buf[:len(buf)/2], &limits); err != ErrIncomplete {
				t.Fatal(err)
			}
			if _, err := h.Parse(buf, &limits); err != nil {
				t.Fatal(err)
			}
		})
		if allocs != 0 {
			t.Errorf("%v allocations for %.30q", allocs, raw)
		}
	}
}
