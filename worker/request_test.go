package worker

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/textproto"
	"reflect"
	"strings"
	"testing"
)

// A request is the one that net/http would make of the same bytes.
func TestRequestIsNetHTTPs(t *testing.T) {
	requests := make(chan *http.Request, 1)
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) { requests <- r })
	head := func(line string, fields ...string) string {
		return strings.Join(append([]string{line}, fields...), "\r\n") + "\r\n\r\n"
	}
	inputs := []string{
		get,
		head("GET / HTTP/1.0"),
		head("GET /? HTTP/1.1", "Host: h"),
		head("GET /a?b?c=/d HTTP/1.1", "Host: h"),
		head("GET /a/../b//c;d=e,f@g:h!i*j'(k) HTTP/1.1", "Host: h"),
		head("GET //host/path HTTP/1.1", "Host: h"),
		head("GET /%41%2F%c3%a4+x?%zz HTTP/1.1", "Host: h"),
		head("GET /[x]{y}|\\^`\"<> HTTP/1.1", "Host: h"),
		head("GET /\xc3\xa4?\xc3\xa4 HTTP/1.1", "Host: h"),
		head("GET http://other:81/x?y HTTP/1.1", "Host: h"),
		head("GET http://other HTTP/1.1", "Host: h"),
		head("GET http://[::1]:8080/ HTTP/1.1", "Host: h"),
		head("CONNECT h:443 HTTP/1.1", "Host: h"),
		head("CONNECT [::1]:443 HTTP/1.1", "Host: h"),
		head("get / HTTP/1.1", "Host: h"),
		head("GET / HTTP/1.1", "Host: h", "Connection: close"),
		head("GET / HTTP/1.1", "Host: h", "Connection: Upgrade, keep-alive", "Upgrade: x"),
		head("GET / HTTP/1.0", "Host: h", "Connection: keep-alive"),
		head("GET / HTTP/1.1", "Host: h", "pragma: no-cache"),
		head("GET / HTTP/1.1", "Host: h", "a: 1", "A: 2", "b:", "x-MiXed-case_under.score: 3 ", "Cookie: a=b", "cookie: c=d"),
		head("GET / HTTP/1.1", "Host: h", "1: a", "2: a", "3: a", "4: a", "5: a", "6: a", "7: a", "8: a", "9: a", "10: a", "11: a", "1: b"),
		head("POST / HTTP/1.1", "Host: h", "Content-Length: 2", "Content-Type: text/plain") + "ok",
		head("POST / HTTP/1.1", "Host: h", "Content-Length: 0"),
		head("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: chunked") + "2\r\nok\r\n0\r\n\r\n",
		head("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: chunked", "Trailer: X-A, x-b", "Expect: 100-continue") + "0\r\n\r\n",
		head("OPTIONS /* HTTP/1.1", "Host: h"),
		head("GET / HTTP/1.1", "Host:"),
		head("PRI * HTTP/2.0"),
	}
	for _, input := range inputs {
		t.Run(strings.SplitN(input, "\r\n\r\n", 2)[0], func(t *testing.T) {
			want, err := http.ReadRequest(bufio.NewReader(strings.NewReader(input)))
			if err != nil {
				t.Fatal(err)
			}
			c := ts.dial()
			c.send(input)
			got := waitFor(t, requests)
			for _, field := range []string{"Method", "URL", "Proto", "ProtoMajor", "ProtoMinor", "Header", "ContentLength", "TransferEncoding", "Close", "Host", "Trailer", "RequestURI"} {
				g, w := reflect.ValueOf(got).Elem().FieldByName(field).Interface(), reflect.ValueOf(want).Elem().FieldByName(field).Interface()
				if field == "Trailer" && len(got.Trailer)+len(want.Trailer) == 0 {
					continue
				}
				if !reflect.DeepEqual(g, w) {
					t.Errorf("%s = %#v, net/http has %#v", field, g, w)
				}
			}
			if got.RemoteAddr != c.LocalAddr().String() {
				t.Errorf("RemoteAddr = %q, want %v", got.RemoteAddr, c.LocalAddr())
			}
			c.Close()
		})
	}
}

// Values of one field must not share room with the next one's.
func TestHeaderValuesAreApart(t *testing.T) {
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		for key, values := range r.Header {
			r.Header[key] = append(values, "more")
		}
		for key, values := range r.Header {
			if len(values) != 2 || values[0] != strings.ToLower(key) || values[1] != "more" {
				t.Errorf("%s: %q", key, values)
			}
		}
	})
	c := ts.dial()
	for n := range 20 {
		var lines []string
		for i := range n {
			lines = append(lines, fmt.Sprintf("F%c: f%c", 'a'+i, 'a'+i))
		}
		c.send(getPath("/", lines...))
		c.want(200, "")
	}
}

// The quick way of detectContentType says what net/http says.
func TestDetectContentType(t *testing.T) {
	samples := []string{"", "{}", "Hello", " <html>", "\t\n<!doctype html>", "<?xml", "%PDF-", "%!PS-Adobe-", "\xef\xbb\xbftext", "\xfe\xff", "\xfe\xfftext", "\xff\xfetext", "\xff\xd8\xff\xe0", "GIF89a",
		"OggS\x00", "RIFF....WEBPVP", "RIFF....WAVE", "FORM....AIFF", "MThd\x00\x00\x00\x06", "ID3", "BM", "wOFF", "wOF2", "OTTO", "ttcf", "Rar!\x1a\x07\x00", "PK\x03\x04",
		"\x1f\x8b\x08", "\x00asm", "....ftypmp42....", "....ftypxx", "text\x00binary", "text\x1bescape", "text\x7f", "\x00\x01\x00\x00", "true", "{\"a\":1}"}
	samples = append(samples, strings.Repeat("a", 34)+"LP", strings.Repeat("a", 34)+"LPx", strings.Repeat("a", 34)+"L", strings.Repeat("a", 600)+"\x00")
	random := rand.New(rand.NewPCG(1, 2))
	for first := range 256 {
		for _, length := range []int{1, 3, 12, 40, 600} {
			p := make([]byte, length)
			for i := range p {
				p[i] = " \n\t<>abcXYZ019{}\"\x7e"[random.IntN(18)]
			}
			p[0] = byte(first)
			samples = append(samples, string(p))
			p[length/2] = byte(random.IntN(256))
			samples = append(samples, string(p))
		}
	}
	for _, tag := range []string{"<!DOCTYPE HTML", "<HTML", "<HEAD", "<SCRIPT", "<IFRAME", "<H1", "<DIV", "<FONT", "<TABLE", "<A", "<STYLE", "<TITLE", "<B", "<BODY", "<BR", "<P", "<!--"} {
		for _, end := range []string{" ", ">", "x"} {
			samples = append(samples, tag+end, "  \r\n"+strings.ToLower(tag)+end)
		}
	}
	for _, sample := range samples {
		if got, want := detectContentType([]byte(sample)), http.DetectContentType([]byte(sample)); got != want {
			t.Errorf("%q is %q, net/http says %q", clip(sample), got, want)
		}
	}
}

// Peers show as they do in net/http.
func TestAddress(t *testing.T) {
	for _, addr := range []string{"192.0.2.1:80", "[2001:db8::1]:65535", "[::1]:1", "[::ffff:192.0.2.1]:80"} {
		tcp, err := net.ResolveTCPAddr("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		a := addressOf(tcp)
		if got := a.String(); got != tcp.String() {
			t.Errorf("%s shows as %s, want %v", addr, got, tcp)
		}
	}
	for _, network := range []string{"127.0.0.1", "[::1]"} {
		l, err := net.Listen("tcp", network+":0")
		if err != nil {
			t.Logf("no %s here: %v", network, err)
			continue
		}
		ts := newTestServer(t, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, r.RemoteAddr, " ", r.Context().Value(http.LocalAddrContextKey))
		})
		go func() { ts.served <- ts.Serve(l) }()
		c := dialTCP(t, l.Addr().String())
		c.send(get)
		c.want(200, fmt.Sprint(c.LocalAddr(), " ", c.RemoteAddr()))
	}
}

// Names are made canonical where they lie, as textproto would.
func TestCanonicalize(t *testing.T) {
	const token = "abcxyzABCXYZ019-_.~!#$%&'*+^`|"
	random := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		name := make([]byte, 1+random.IntN(12))
		for i := range name {
			name[i] = token[random.IntN(len(token))]
		}
		given, want := string(name), textproto.CanonicalMIMEHeaderKey(string(name))
		if canonicalize(name); string(name) != want {
			t.Fatalf("%q becomes %q, want %q", given, name, want)
		}
	}
}
