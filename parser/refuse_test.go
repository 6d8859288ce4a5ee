package parser

import (
	"errors"
	"strings"
	"testing"
)

const (
	name256 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345ABCDEFGHIJKLMNOPQRSTUVWXYZ012345" +
		"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345ABCDEFGHIJKLMNOPQRSTUVWXYZ012345" +
		"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345ABCDEFGHIJKLMNOPQRSTUVWXYZ012345" +
		"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
	chunked = "Transfer-Encoding: chunked\r\n"
)

// In badRequests raw ends with the byte that settles it: without it the request
// must be incomplete, with it, and with rest behind it, refused.
var badRequests = []struct {
	name, raw, rest string
	limits          Limits
	status          int
	reason          Reason
	detail          string
}{
	{name: "TLS", raw: "\x16", rest: "\x03\x01\x02\x00\x01", status: 400, reason: ReasonTLSHello},
	{name: "TLS after an empty line", raw: "\r\n\x16", status: 400, reason: ReasonTLSHello},
	{name: "five empty lines", raw: "\r\n\r\n\r\n\r\n\r", rest: "\n" + get + host, status: 400, reason: ReasonEmptyLines},
	{name: "bare LF first", raw: "\n", rest: get, status: 400, reason: ReasonBareLF},
	{name: "bare CR first", raw: "\rG", status: 400, reason: ReasonBareCR},
	{name: "two CRs first", raw: "\r\r", rest: "\n", status: 400, reason: ReasonBareCR},

	{name: "space before the method", raw: " ", rest: get, status: 400, reason: ReasonBadMethod},
	{name: "bad byte in the method", raw: "G(", rest: "T / HTTP/1.1\r\n", status: 400, reason: ReasonBadMethod},
	{name: "high byte in the method", raw: "G\xc3", status: 400, reason: ReasonBadMethod},
	{name: "tab after the method", raw: "GET\t", rest: "/ HTTP/1.1\r\n", status: 400, reason: ReasonBadMethod},
	{name: "method only", raw: "GET\r", rest: "\n\r\n", status: 400, reason: ReasonBadMethod},
	{name: "method only, with LF", raw: "GET\n", status: 400, reason: ReasonBareLF},
	{name: "method too long", raw: "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456", rest: " / HTTP/1.1\r\n", status: 501, reason: ReasonMethodTooLong},
	{name: "method too long for us", raw: "GET", rest: " / HTTP/1.1\r\n", limits: Limits{Method: 2}, status: 501, reason: ReasonMethodTooLong},

	{name: "no target", raw: "GET  ", rest: "HTTP/1.1\r\n", status: 400, reason: ReasonBadTargetForm},
	{name: "two spaces before the target", raw: "GET  ", rest: "/ HTTP/1.1\r\n", status: 400, reason: ReasonBadTargetForm},
	{name: "two spaces after the target", raw: "GET /  ", rest: "HTTP/1.1\r\n", status: 400, reason: ReasonBadVersion},
	{name: "tab in the target", raw: "GET /\t", rest: "HTTP/1.1\r\n", status: 400, reason: ReasonBadTarget},
	{name: "NUL in the target", raw: "GET /abcdefghij\x00", status: 400, reason: ReasonBadTarget},
	{name: "DEL in the target", raw: "GET /abcdefghij\x7f", rest: "klmnopqr", status: 400, reason: ReasonBadTarget},
	{name: "HTTP/0.9", raw: "GET /\r", rest: "\n", status: 400, reason: ReasonBadTarget},
	{name: "HTTP/0.9 with LF", raw: "GET /\n", status: 400, reason: ReasonBareLF},
	{name: "relative target", raw: "GET a/b ", rest: "HTTP/1.1\r\n", status: 400, reason: ReasonBadTargetForm},
	{name: "asterisk for GET", raw: "GET * ", rest: "HTTP/1.1\r\n", status: 400, reason: ReasonBadTargetForm},
	{name: "asterisk and more", raw: "OPTIONS *a ", rest: "HTTP/1.1\r\n", status: 400, reason: ReasonBadTargetForm},
	{name: "asterisk with a query", raw: "OPTIONS *? ", rest: "HTTP/1.1\r\n", status: 400, reason: ReasonBadTargetForm},
	{name: "query only", raw: "GET ?a ", rest: "HTTP/1.1\r\n", status: 400, reason: ReasonBadTargetForm},
	{name: "authority for GET", raw: "GET a.b:80 ", rest: "HTTP/1.1\r\n", status: 400, reason: ReasonBadTargetForm},
	{name: "no scheme", raw: "GET ://a/ ", rest: "HTTP/1.1\r\n", status: 400, reason: ReasonBadTargetForm},
	{name: "bad scheme", raw: "GET 1http://a/ ", rest: "HTTP/1.1\r\n", status: 400, reason: ReasonBadTargetForm},
	{name: "bad byte in the scheme", raw: "GET ht_tp://a/ ", rest: "HTTP/1.1\r\n", status: 400, reason: ReasonBadTargetForm},
	{name: "scheme without an authority", raw: "GET http:/a ", rest: "HTTP/1.1\r\n", status: 400, reason: ReasonBadTargetForm},
	{name: "empty authority", raw: "GET http:///a ", rest: "HTTP/1.1\r\n", status: 400, reason: ReasonBadTargetForm},
	{name: "authority without a host", raw: "GET http://:80/ ", rest: "HTTP/1.1\r\n", status: 400, reason: ReasonBadTargetForm},
	{name: "user information", raw: "GET http://u:p@a/ ", rest: "HTTP/1.1\r\n", status: 400, reason: ReasonBadTargetForm},
	{name: "bad byte in the authority", raw: "GET http://a\\b/ ", rest: "HTTP/1.1\r\n", status: 400, reason: ReasonBadTargetForm},
	{name: "CONNECT to a URI", raw: "CONNECT http://a:80 ", rest: "HTTP/1.1\r\n", status: 400, reason: ReasonBadTargetForm},
	{name: "CONNECT without a port", raw: "CONNECT a ", rest: "HTTP/1.1\r\n", status: 400, reason: ReasonBadTargetForm},
	{name: "CONNECT to an empty port", raw: "CONNECT a: ", rest: "HTTP/1.1\r\n", status: 400, reason: ReasonBadTargetForm},
	{name: "CONNECT to a port over 65535", raw: "CONNECT a:65536 ", rest: "HTTP/1.1\r\n", status: 400, reason: ReasonBadTargetForm},
	{name: "CONNECT without a host", raw: "CONNECT :80 ", rest: "HTTP/1.1\r\n", status: 400, reason: ReasonBadTargetForm},
	{name: "CONNECT to empty brackets", raw: "CONNECT []:80 ", rest: "HTTP/1.1\r\n", status: 400, reason: ReasonBadTargetForm},
	{name: "CONNECT to nested brackets", raw: "CONNECT [[::1]]:80 ", rest: "HTTP/1.1\r\n", status: 400, reason: ReasonBadTargetForm},
	{name: "CONNECT to IPv6 without brackets", raw: "CONNECT ::1:80 ", rest: "HTTP/1.1\r\n", status: 400, reason: ReasonBadTargetForm},
	{name: "CONNECT with a query", raw: "CONNECT a?:80 ", rest: "HTTP/1.1\r\n", status: 400, reason: ReasonBadTargetForm},
	{name: "CONNECT *", raw: "CONNECT * ", rest: "HTTP/1.1\r\n", status: 400, reason: ReasonBadTargetForm},
	{name: "fragment", raw: "GET /a#", rest: "b HTTP/1.1\r\n", status: 400, reason: ReasonFragment},
	{name: "fragment too long", raw: "GET /a#bcd ", rest: "HTTP/1.1\r\n", limits: Limits{Fragment: 2}, status: 414, reason: ReasonFragmentTooLong},
	{name: "target too long", raw: "GET /a?bcd", rest: "efghijklmn HTTP/1.1\r\n", limits: Limits{Target: 5}, status: 414, reason: ReasonTargetTooLong},
	{name: "target too long, then wrong", raw: "GET /a?bcd", rest: "\x00", limits: Limits{Target: 5}, status: 414, reason: ReasonTargetTooLong},
	{name: "target wrong at its limit", raw: "GET /a?bc\x00", limits: Limits{Target: 5}, status: 400, reason: ReasonBadTarget},
	{name: "path too long", raw: "GET /ab?c ", rest: "HTTP/1.1\r\n", limits: Limits{Path: 2}, status: 414, reason: ReasonPathTooLong},
	{name: "query too long", raw: "GET /ab?cde ", rest: "HTTP/1.1\r\n", limits: Limits{Query: 2}, status: 414, reason: ReasonQueryTooLong},
	{name: "request line too long", raw: "GET / HTTP", rest: "/1.1\r\n", limits: Limits{Head: 9}, status: 414, reason: ReasonRequestLineTooLong},
	{name: "request line too long, in the target", raw: "GET /aaaaa", rest: "aaaaaaaaaaaaaaaaa", limits: Limits{Head: 9}, status: 414, reason: ReasonRequestLineTooLong},
	{name: "many empty lines make the request line too long", raw: "\r\n\r\nG", limits: Limits{Head: 4}, status: 414, reason: ReasonRequestLineTooLong},

	{name: "no version", raw: "GET / \r", rest: "\n", status: 400, reason: ReasonBadVersion},
	{name: "lower-case version", raw: "GET / h", rest: "ttp/1.1\r\n", status: 400, reason: ReasonBadVersion},
	{name: "space in the target", raw: "GET /a b", rest: " HTTP/1.1\r\n", status: 400, reason: ReasonBadVersion},
	{name: "version without a minor", raw: "GET / HTTP/1\r", rest: "\n", status: 400, reason: ReasonBadVersion},
	{name: "version with a comma", raw: "GET / HTTP/1,", rest: "1\r\n", status: 400, reason: ReasonBadVersion},
	{name: "version with a letter", raw: "GET / HTTP/1.x", status: 400, reason: ReasonBadVersion},
	{name: "version with two digits", raw: "GET / HTTP/1.11", rest: "\r\n", status: 400, reason: ReasonBadVersion},
	{name: "space after the version", raw: "GET / HTTP/1.1 ", rest: "\r\n", status: 400, reason: ReasonBadVersion},
	{name: "LF after the version", raw: "GET / HTTP/1.1\n", rest: host, status: 400, reason: ReasonBareLF},
	{name: "CR after the version", raw: "GET / HTTP/1.1\rH", rest: "ost: a\r\n", status: 400, reason: ReasonBareCR},
	{name: "HTTP/0.9 in words", raw: "GET / HTTP/0.9", rest: "\r\n", status: 505, reason: ReasonUnsupportedVersion},
	{name: "HTTP/2.0", raw: "GET / HTTP/2.0", rest: "\r\n", status: 505, reason: ReasonUnsupportedVersion},
	{name: "HTTP/3.0", raw: "GET / HTTP/3.0", rest: "\r\n", status: 505, reason: ReasonUnsupportedVersion},
	{name: "PRI in HTTP/1.1", raw: "PRI * HTTP/1.1", rest: "\r\n" + host + "\r\n", status: 400, reason: ReasonBadTargetForm},
	{name: "PRI in HTTP/2.1", raw: "PRI * HTTP/2.1", status: 505, reason: ReasonUnsupportedVersion},
	{name: "PRI / in HTTP/2.0", raw: "PRI / HTTP/2.0", status: 505, reason: ReasonUnsupportedVersion},
	{name: "OPTIONS * in HTTP/2.0", raw: "OPTIONS * HTTP/2.0", status: 505, reason: ReasonUnsupportedVersion},
	{name: "preface after an empty line", raw: "\r\nPRI * HTTP/2.0", rest: "\r\n\r\n", status: 505, reason: ReasonUnsupportedVersion},
	{name: "preface with a field", raw: "PRI * HTTP/2.0\r\nH", rest: "ost: a\r\n\r\n", status: 505, reason: ReasonUnsupportedVersion},

	{name: "fold first", raw: get + " ", rest: "Host: a\r\n\r\n", status: 400, reason: ReasonObsFold},
	{name: "fold", raw: get + host + "\t", rest: "more\r\n\r\n", status: 400, reason: ReasonObsFold},
	{name: "bare LF for the last line", raw: get + host + "\n", status: 400, reason: ReasonBareLF},
	{name: "bare CR for the last line", raw: get + host + "\ra", status: 400, reason: ReasonBareCR},
	{name: "empty name", raw: get + ":", rest: " a\r\n\r\n", status: 400, reason: ReasonBadFieldName, detail: ":"},
	{name: "line without a colon", raw: get + "Hos\r", rest: "\nt: a\r\n\r\n", status: 400, reason: ReasonBadFieldName, detail: `Hos\r`},
	{name: "name with LF", raw: get + "Hos\n", rest: "Host: a\r\n\r\n", status: 400, reason: ReasonBareLF, detail: "Hos"},
	{name: "CR for a dash", raw: get + host + "Content\r", rest: "Length: 5\r\n\r\n", status: 400, reason: ReasonBadFieldName, detail: `Content\r`},
	{name: "space before the colon", raw: get + "Host ", rest: ": a\r\n\r\n", status: 400, reason: ReasonSpaceBeforeColon, detail: "Host"},
	{name: "tab before the colon", raw: get + "Content-Length\t", rest: ": 5\r\n\r\n", status: 400, reason: ReasonSpaceBeforeColon, detail: "Content-Length"},
	{name: "space in a name", raw: get + "GET ", rest: "/ HTTP/1.1\r\nHost: a\r\n\r\n", status: 400, reason: ReasonSpaceBeforeColon, detail: "GET"},
	{name: "high byte in a name", raw: get + host + "Transfer-Encoding\xff", rest: ": chunked\r\n\r\n", status: 400, reason: ReasonBadFieldName, detail: `Transfer-Encoding\xff`},
	{name: "NUL in a name", raw: get + "\x00", rest: "Host: a\r\n\r\n", status: 400, reason: ReasonBadFieldName, detail: `\x00`},
	{name: "bracket in a name", raw: get + "a[", rest: "]: a\r\n\r\n", status: 400, reason: ReasonBadFieldName, detail: "a["},
	{name: "name too long", raw: get + name256 + "A", rest: ": a\r\n\r\n", status: 431, reason: ReasonFieldNameTooLong, detail: name256[:64]},
	{name: "known name too long for us", raw: get + "Cook", rest: "ie: a\r\n\r\n", limits: Limits{HeaderName: 3}, status: 431, reason: ReasonFieldNameTooLong, detail: "Coo"},
	{name: "NUL in a value", raw: get + "A: b\x00", rest: "c\r\n\r\n", status: 400, reason: ReasonBadFieldValue, detail: "A"},
	{name: "DEL in a value", raw: get + "A: 0123456789\x7f", rest: "0123456\r\n\r\n", status: 400, reason: ReasonBadFieldValue, detail: "A"},
	{name: "control after a tab", raw: get + "A: 0\t\x01", rest: "c\r\n\r\n", status: 400, reason: ReasonBadFieldValue, detail: "A"},
	{name: "bare LF after a value", raw: get + "Host: a\n", rest: "B: c\r\n\r\n", status: 400, reason: ReasonBareLF, detail: "Host"},
	{name: "bare CR in a value", raw: get + "Host: a\rb", rest: "\r\n\r\n", status: 400, reason: ReasonBareCR, detail: "Host"},
	{name: "two CRs after a value", raw: get + "Host: a\r\r", rest: "\n\r\n", status: 400, reason: ReasonBareCR, detail: "Host"},
	{name: "bare LF for a value", raw: get + "Host:\n", rest: "B: c\r\n\r\n", status: 400, reason: ReasonBareLF, detail: "Host"},
	{name: "value too long", raw: get + "A: bcde", rest: "fghijklmnop\r\n\r\n", limits: Limits{HeaderValue: 3}, status: 431, reason: ReasonFieldValueTooLong, detail: "A"},
	{name: "value too long with its spaces", raw: get + "A: b   ", rest: "\r\n\r\n", limits: Limits{HeaderValue: 3}, status: 431, reason: ReasonFieldValueTooLong, detail: "A"},
	{name: "value too long after a tab", raw: get + "A: b\tcd", rest: "\t\x00\r\n\r\n", limits: Limits{HeaderValue: 3}, status: 431, reason: ReasonFieldValueTooLong, detail: "A"},
	{name: "value wrong at its limit", raw: get + "A: bcd\x00", limits: Limits{HeaderValue: 3}, status: 400, reason: ReasonBadFieldValue, detail: "A"},
	{name: "too many fields", raw: get + "Host: a\r\nB: c\r\nD", rest: ": e\r\n\r\n", limits: Limits{HeaderCount: 2}, status: 431, reason: ReasonTooManyFields},
	{name: "head too long", raw: get + host + "\r\n", limits: Limits{Head: len(get + host + "\r")}, status: 431, reason: ReasonHeadTooLong},
	{name: "head too long in a value", raw: get + "Host: ab", rest: "cdefghijklm\x00\r\n\r\n", limits: Limits{Head: len(get + "Host: a")}, status: 431, reason: ReasonHeadTooLong},

	{name: "no Host", raw: get + "\r\n", status: 400, reason: ReasonMissingHost},
	{name: "no Host in HTTP/1.2", raw: "GET / HTTP/1.2\r\nHosts: a\r\n\r\n", status: 400, reason: ReasonMissingHost},
	{name: "no Host with an absolute target", raw: "GET http://a/ HTTP/1.1\r\n\r\n", status: 400, reason: ReasonMissingHost},
	{name: "Host with two ports", raw: get + "Host: a:80:80\r\n", rest: "\r\n", status: 400, reason: ReasonBadHost, detail: "Host"},
	{name: "Host with two ports in HTTP/1.0", raw: "GET / HTTP/1.0\r\nHost: a:80:80\r\n", rest: "\r\n", status: 400, reason: ReasonBadHost, detail: "Host"},
	{name: "two Hosts", raw: get + host + "Accept: a\r\n" + host, rest: "\r\n", status: 400, reason: ReasonRepeatedHost, detail: "Host"},
	{name: "two Hosts, one empty", raw: get + "Host:\r\n" + host, rest: "\r\n", status: 400, reason: ReasonRepeatedHost, detail: "Host"},
	{name: "two Hosts in HTTP/1.0", raw: "GET / HTTP/1.0\r\n" + host + "host: b\r\n", rest: "\r\n", status: 400, reason: ReasonRepeatedHost, detail: "Host"},
	{name: "Host with a slash", raw: get + "Host: a/b\r\n", rest: "\r\n", status: 400, reason: ReasonBadHost, detail: "Host"},
	{name: "Host with a space", raw: get + "Host: a b\r\n", rest: "\r\n", status: 400, reason: ReasonBadHost, detail: "Host"},
	{name: "Host with user information", raw: get + "Host: a@b\r\n", rest: "\r\n", status: 400, reason: ReasonBadHost, detail: "Host"},
	{name: "Host with a high byte", raw: get + "Host: a\xc3\xa9\r\n", rest: "\r\n", status: 400, reason: ReasonBadHost, detail: "Host"},

	{name: "empty length", raw: get + "Content-Length: \r\n", rest: "\r\n", status: 400, reason: ReasonBadContentLength, detail: "Content-Length"},
	{name: "length with a sign", raw: get + "Content-Length: +5\r\n", rest: "\r\n", status: 400, reason: ReasonBadContentLength, detail: "Content-Length"},
	{name: "negative length", raw: get + "Content-Length: -5\r\n", rest: "\r\n", status: 400, reason: ReasonBadContentLength, detail: "Content-Length"},
	{name: "hexadecimal length", raw: get + "Content-Length: 0x5\r\n", rest: "\r\n", status: 400, reason: ReasonBadContentLength, detail: "Content-Length"},
	{name: "length with an underscore", raw: get + "Content-Length: 1_0\r\n", rest: "\r\n", status: 400, reason: ReasonBadContentLength, detail: "Content-Length"},
	{name: "length with a fraction", raw: get + "Content-Length: 1.0\r\n", rest: "\r\n", status: 400, reason: ReasonBadContentLength, detail: "Content-Length"},
	{name: "length as a list", raw: get + "Content-Length: 5, 5\r\n", rest: "\r\n", status: 400, reason: ReasonBadContentLength, detail: "Content-Length"},
	{name: "length with a space", raw: get + "Content-Length: 5 5\r\n", rest: "\r\n", status: 400, reason: ReasonBadContentLength, detail: "Content-Length"},
	{name: "length of 2^63", raw: get + "Content-Length: 9223372036854775808\r\n", rest: "\r\n", status: 400, reason: ReasonBadContentLength, detail: "Content-Length"},
	{name: "length of 2^64+5", raw: get + "Content-Length: 18446744073709551621\r\n", rest: "\r\n", status: 400, reason: ReasonBadContentLength, detail: "Content-Length"},
	{name: "two lengths", raw: get + "Content-Length: 5\r\ncontent-length: 5\r\n", rest: "\r\n", status: 400, reason: ReasonRepeatedContentLength, detail: "Content-Length"},
	{name: "body too large", raw: get + host + "Content-Length: 8\r\n\r\n", rest: "12345678", limits: Limits{Body: 7}, status: 413, reason: ReasonBodyTooLarge},

	{name: "unknown coding", raw: get + "Transfer-Encoding: gzip\r\n", rest: "\r\n", status: 501, reason: ReasonUnsupportedTransferEncoding, detail: "Transfer-Encoding"},
	{name: "identity", raw: get + "Transfer-Encoding: identity\r\n", rest: "\r\n", status: 501, reason: ReasonUnsupportedTransferEncoding, detail: "Transfer-Encoding"},
	{name: "list of codings", raw: get + "Transfer-Encoding: gzip, chunked\r\n", rest: "\r\n", status: 501, reason: ReasonUnsupportedTransferEncoding, detail: "Transfer-Encoding"},
	{name: "chunked first", raw: get + "Transfer-Encoding: chunked,identity\r\n", rest: "\r\n", status: 400, reason: ReasonBadTransferEncoding, detail: "Transfer-Encoding"},
	{name: "chunked with a parameter", raw: get + "Transfer-Encoding: chunked;a=b\r\n", rest: "\r\n", status: 501, reason: ReasonUnsupportedTransferEncoding, detail: "Transfer-Encoding"},
	{name: "chunked in quotes", raw: get + "Transfer-Encoding: \"chunked\"\r\n", rest: "\r\n", status: 501, reason: ReasonUnsupportedTransferEncoding, detail: "Transfer-Encoding"},
	{name: "xchunked", raw: get + "Transfer-Encoding: xchunked\r\n", rest: "\r\n", status: 501, reason: ReasonUnsupportedTransferEncoding, detail: "Transfer-Encoding"},
	{name: "empty coding", raw: get + "Transfer-Encoding:\r\n", rest: "\r\n", status: 400, reason: ReasonBadTransferEncoding, detail: "Transfer-Encoding"},
	{name: "empty element", raw: get + "Transfer-Encoding: ,chunked\r\n", rest: "\r\n", status: 400, reason: ReasonBadTransferEncoding, detail: "Transfer-Encoding"},
	{name: "empty last element", raw: get + "Transfer-Encoding: chunked ,\r\n", rest: "\r\n", status: 400, reason: ReasonBadTransferEncoding, detail: "Transfer-Encoding"},
	{name: "chunked twice", raw: get + "Transfer-Encoding: chunked, chunked\r\n", rest: "\r\n", status: 400, reason: ReasonBadTransferEncoding, detail: "Transfer-Encoding"},
	{name: "two Transfer-Encodings", raw: get + chunked + chunked, rest: "\r\n", status: 400, reason: ReasonBadTransferEncoding, detail: "Transfer-Encoding"},
	{name: "length, then chunked", raw: get + "Content-Length: 5\r\n" + chunked, rest: "\r\n", status: 400, reason: ReasonLengthAndTransferEncoding, detail: "Transfer-Encoding"},
	{name: "chunked, then length", raw: get + chunked + "Content-Length: 0\r\n", rest: "\r\n", status: 400, reason: ReasonLengthAndTransferEncoding, detail: "Content-Length"},
	{name: "chunked in HTTP/1.0", raw: "POST / HTTP/1.0\r\n" + chunked, rest: "\r\n", status: 400, reason: ReasonTransferEncodingVersion, detail: "Transfer-Encoding"},
	{name: "trailer with framing", raw: get + host + chunked + "Trailer: Digest\r\nTrailer: a, transfer-ENCODING\r\n\r\n", status: 400, reason: ReasonBadTrailer, detail: "Trailer"},
}

func TestBadRequests(t *testing.T) {
	seen := map[Reason]bool{}
	for _, test := range badRequests {
		t.Run(test.name, func(t *testing.T) {
			limits := test.limits.WithDefaults()
			if _, err := parseEveryWay(t, test.raw[:len(test.raw)-1], &limits); err != ErrIncomplete {
				t.Fatalf("without the offending byte: %v", err)
			}
			for _, rest := range []string{"", test.rest, test.rest + strings.Repeat("x", 40)} {
				_, err := parseEveryWay(t, test.raw+rest, &limits)
				var e *Error
				if !errors.As(err, &e) || *e != (Error{test.status, test.reason, test.detail}) {
					t.Errorf("%v, want %d %v %q", err, test.status, test.reason, test.detail)
				}
			}
			seen[test.reason] = true
		})
	}
	for r := range Reason(ReasonBadChunkSize) {
		if !seen[r] {
			t.Errorf("no request is refused for %v", r)
		}
	}
}

func TestReasons(t *testing.T) {
	names := map[string]bool{}
	for r := range Reason(NumReasons) {
		if name := r.String(); name == "" || names[name] || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz_0123456789") != "" {
			t.Errorf("reason %d is called %q", r, name)
		}
		names[r.String()] = true
		if s := reasons[r].status; s < 400 || s > 505 {
			t.Errorf("%v has status %d", r, s)
		}
	}
	if got := Reason(NumReasons).String(); got != "unknown" {
		t.Errorf("no reason is called %q", got)
	}
	if got := newError(ReasonBadHost, "Host").Error(); got != "parser: 400 bad_host in Host" {
		t.Error(got)
	}
}

// TestEachWrongByte puts each byte that cannot be in a name or a value at each
// place of a word.
func TestEachWrongByte(t *testing.T) {
	for c := range 256 {
		for place := range 17 {
			filler := "abcdefghijklmnopq"
			spoiled := filler[:place] + string([]byte{byte(c)}) + filler[place+1:]
			for _, test := range []struct {
				raw string
				ok  bool
			}{
				{spoiled + " / HTTP/1.1\r\nHost: a\r\n\r\n", tchar(c)},
				{"GET /" + spoiled + " HTTP/1.1\r\nHost: a\r\n\r\n", c > ' ' && c != 0x7f && c != '#'},
				{get + host + spoiled + ": a\r\n\r\n", tchar(c) || c == ':' && place > 0},
				{get + host + "a: " + spoiled + "\r\n\r\n", c >= ' ' && c != 0x7f || c == '\t'},
			} {
				_, err := parseAt(new(Head), test.raw, nil)
				if (err == nil) != test.ok {
					t.Errorf("%v for %q", err, test.raw)
				}
				if _, again := parseAt(new(Head), test.raw, nil, everyPrefix(test.raw)...); (again == nil) != test.ok {
					t.Errorf("%v byte by byte for %q", again, test.raw)
				}
			}
		}
	}
}

// tchar is written as in RFC 9110 section 5.6.2, unlike the table.
func tchar(c int) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' ||
		c < 0x80 && strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c))
}
