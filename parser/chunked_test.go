package parser

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// decoded is what comes out of a body.
type decoded struct {
	Data     string
	Consumed int
	Trailers []TrailerField
}

// decodeAt decodes raw, which it gives d in the pieces that end at cuts and a
// last one. Each piece lies elsewhere and is spoiled after use.
func decodeAt(d *ChunkedDecoder, raw string, limits *Limits, cuts ...int) (decoded, error) {
	d.Reset()
	var got decoded
	var data []byte
	for _, cut := range append(slices.Clone(cuts), len(raw)) {
		if cut < got.Consumed {
			continue
		}
		piece := slices.Clip([]byte(raw[got.Consumed:cut]))
		rest := piece
		for {
			run, n, err := d.Decode(rest, limits)
			if n > len(rest) || len(run) > n || len(run) > 0 && err != nil || len(run) == 0 && err == nil {
				return got, fmt.Errorf("Decode(%q) = %q, %d, %v", rest, run, n, err)
			}
			data = append(data, run...)
			got.Consumed += n
			if err == nil {
				if rest = rest[n:]; len(rest) > 0 {
					continue
				}
				break
			}
			if err == ErrIncomplete {
				if n != len(rest) {
					return got, fmt.Errorf("incomplete, but %d of %d bytes are left", len(rest)-n, len(rest))
				}
				break
			}
			if _, n2, err2 := d.Decode(rest, limits); n2 != 0 || err2 != err {
				return got, fmt.Errorf("second call returns %d, %v after %v", n2, err2, err)
			}
			got.Trailers = d.Trailers()
			if err != io.EOF {
				got.Consumed = 0 // depends on the pieces
			}
			got.Data = string(data)
			return got, err
		}
		for i := range piece {
			piece[i] = 0
		}
	}
	got.Data = string(data)
	return got, ErrIncomplete
}

func decodeEveryWay(t *testing.T, raw string, limits *Limits) (decoded, error) {
	t.Helper()
	var d ChunkedDecoder
	want, wantErr := decodeAt(&d, raw, limits)
	same := func(how string, got decoded, err error) {
		t.Helper()
		if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(err, wantErr) {
			t.Fatalf("%s: %+v, %v\nwhole: %+v, %v\nbody: %q", how, got, err, want, wantErr, raw)
		}
	}
	got, err := decodeAt(&d, raw, limits, everyPrefix(raw)...)
	same("byte by byte", got, err)
	for cut := range len(raw) {
		got, err := decodeAt(&d, raw, limits, cut)
		same(fmt.Sprintf("cut at %d", cut), got, err)
	}
	return want, wantErr
}

var goodBodies = []struct {
	name, raw, data string
	limits          Limits
	trailers        []TrailerField
}{
	{name: "empty", raw: "0\r\n\r\n"},
	{name: "one chunk", raw: "5\r\nhello\r\n0\r\n\r\n", data: "hello"},
	{name: "two chunks", raw: "5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n", data: "hello, world"},
	{name: "hexadecimal", raw: "a\r\n0123456789\r\nB\r\n0123456789\n\r\n0\r\n\r\n", data: "01234567890123456789\n"},
	{name: "data like framing", raw: "7\r\n\r\n0\r\n\r\n\r\n00\r\n\r\n", data: "\r\n0\r\n\r\n"},
	{name: "sixteen digits", raw: "0000000000000001\r\na\r\n0000000000000000\r\n\r\n", data: "a"},
	{name: "extensions", raw: "1;a\r\nx\r\n1; b = c\t;d=\"e \\\" f\xff;\";g\r\ny\r\n0;last=\"\"\r\n\r\n", data: "xy"},
	{name: "chunk line as long as allowed", raw: "1;abc\r\nx\r\n0\r\n\r\n", data: "x", limits: Limits{ChunkLine: 5}},
	{name: "trailers", raw: "1\r\nx\r\n0\r\nDigest: a b \r\nx-y:\r\nX_Z: 1\r\n\r\n", data: "x",
		trailers: []TrailerField{{"Digest", "a b"}, {"x-y", ""}, {"X_Z", "1"}}},
	{name: "forbidden trailers", raw: "0\r\ncontent-length: 5\r\nTransfer-Encoding: x\r\nHost: a b\r\nHost: c\r\nAuthorization: x\r\n" +
		"X-Forwarded-For: 1.2.3.4\r\nContent-Type: a\r\nContent-Digest: b\r\nConnection: close\r\nTrailer: Host\r\nCookie: c\r\nIf-Match: d\r\n\r\n",
		trailers: []TrailerField{{"Content-Digest", "b"}}},
	{name: "trailer as long as allowed", raw: "0\r\na: b\r\n\r\n", limits: Limits{Trailer: 8}, trailers: []TrailerField{{"a", "b"}}},
	{name: "no limits", raw: "1;abc\r\nx\r\n0\r\na: b\r\n\r\n", data: "x",
		limits:   Limits{-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, false},
		trailers: []TrailerField{{"a", "b"}}},
	{name: "many chunks of one byte", raw: strings.Repeat("1\r\nx\r\n", 5000) + "0\r\n\r\n", data: strings.Repeat("x", 5000)},
	{name: "extensions that the data explains", raw: strings.Repeat("20;"+strings.Repeat("e", 60)+"\r\n"+strings.Repeat("d", 32)+"\r\n", 500) + "0\r\n\r\n",
		data: strings.Repeat("d", 32*500)},
}

func TestGoodBodies(t *testing.T) {
	for _, test := range goodBodies {
		t.Run(test.name, func(t *testing.T) {
			limits := test.limits.WithDefaults()
			decode := decodeEveryWay
			if len(test.raw) > 1000 { // too many places to cut all
				decode = func(t *testing.T, raw string, limits *Limits) (decoded, error) {
					got, err := decodeAt(new(ChunkedDecoder), raw, limits)
					again, err2 := decodeAt(new(ChunkedDecoder), raw, limits, everyPrefix(raw)...)
					if !reflect.DeepEqual(got, again) || err != err2 {
						t.Errorf("%v or %v", err, err2)
					}
					return got, err
				}
			}
			for _, behind := range []string{"", "\r", "0\r\n\r\n", "GET / HTTP/1.1\r\n"} {
				got, err := decode(t, test.raw+behind, &limits)
				want := decoded{test.data, len(test.raw), test.trailers}
				if len(test.trailers) == 0 && len(got.Trailers) == 0 {
					want.Trailers = got.Trailers
				}
				if err != io.EOF || !reflect.DeepEqual(got, want) {
					t.Errorf("got %+v, %v\nwant %+v", got, err, want)
				}
			}
			if _, err := decode(t, test.raw[:len(test.raw)-1], &limits); err != ErrIncomplete {
				t.Errorf("without its last byte: %v", err)
			}
			if _, err := decodeAt(new(ChunkedDecoder), test.raw, &test.limits); err != io.EOF {
				t.Errorf("with limits that were not completed: %v", err)
			}
		})
	}
}

// As in badRequests, raw ends with the byte that settles it.
var badBodies = []struct {
	name, raw, rest string
	limits          Limits
	status          int
	reason          Reason
	detail          string
}{
	{name: "no size", raw: "\r", rest: "\n", status: 400, reason: ReasonBadChunkSize},
	{name: "extension without a size", raw: ";", rest: "a\r\n", status: 400, reason: ReasonBadChunkSize},
	{name: "sign", raw: "+", rest: "1\r\nx\r\n", status: 400, reason: ReasonBadChunkSize},
	{name: "minus", raw: "-", rest: "1\r\nx\r\n", status: 400, reason: ReasonBadChunkSize},
	{name: "0x", raw: "0x", rest: "1\r\nx\r\n", status: 400, reason: ReasonBadChunkSize},
	{name: "underscore", raw: "1_", rest: "0\r\n", status: 400, reason: ReasonBadChunkSize},
	{name: "no digit", raw: "g", rest: "\r\n", status: 400, reason: ReasonBadChunkSize},
	{name: "at sign", raw: "1@", rest: "\r\n", status: 400, reason: ReasonBadChunkSize},
	{name: "space before the size", raw: " ", rest: "1\r\nx\r\n", status: 400, reason: ReasonBadChunkSize},
	{name: "space behind the size", raw: "1 ", rest: "\r\nx\r\n", status: 400, reason: ReasonBadChunkSize},
	{name: "tab before the extension", raw: "1\t", rest: ";a\r\nx\r\n", status: 400, reason: ReasonBadChunkSize},
	{name: "space in an extension", raw: "1;a b", rest: "\r\nx\r\n", status: 400, reason: ReasonBadChunkExtension},
	{name: "space behind an extension", raw: "1;a \r", rest: "\nx\r\n", status: 400, reason: ReasonBadChunkExtension},
	{name: "space behind a value", raw: "1;a=b \r", rest: "\nx\r\n", status: 400, reason: ReasonBadChunkExtension},
	{name: "empty extension", raw: "1;\r", rest: "\nx\r\n", status: 400, reason: ReasonBadChunkExtension},
	{name: "empty extension before another", raw: "1;;", rest: "a\r\nx\r\n", status: 400, reason: ReasonBadChunkExtension},
	{name: "extension without a name", raw: "1;=", rest: "b\r\nx\r\n", status: 400, reason: ReasonBadChunkExtension},
	{name: "extension without a value", raw: "1;a=\r", rest: "\nx\r\n", status: 400, reason: ReasonBadChunkExtension},
	{name: "extension beyond ASCII", raw: "1;\xe4", rest: "\r\nx\r\n", status: 400, reason: ReasonBadChunkExtension},
	{name: "open quotes", raw: "1;a=\"b\r", rest: "\nx\r\n", status: 400, reason: ReasonBadChunkExtension},
	{name: "escaped quotes", raw: "1;a=\"b\\\"\r", rest: "\nx\r\n", status: 400, reason: ReasonBadChunkExtension},
	{name: "text behind quotes", raw: "1;a=\"b\"c", rest: "\r\nx\r\n", status: 400, reason: ReasonBadChunkExtension},
	{name: "quotes in a token", raw: "1;a=b\"", rest: "\r\nx\r\n", status: 400, reason: ReasonBadChunkExtension},
	{name: "bare LF behind the size", raw: "1\n", rest: "x\r\n", status: 400, reason: ReasonBareLF},
	{name: "bare CR behind the size", raw: "1\rx", rest: "\r\n", status: 400, reason: ReasonBareCR},
	{name: "size of 2^63", raw: "8000000000000000", rest: "\r\n", status: 400, reason: ReasonChunkSizeOverflow},
	{name: "size of 2^64+1", raw: "ffffffffffffffff", rest: "1\r\n", status: 400, reason: ReasonChunkSizeOverflow},
	{name: "seventeen digits", raw: "00000000000000001", rest: "\r\nx\r\n", status: 400, reason: ReasonChunkSizeOverflow},
	{name: "bare LF in an extension", raw: "1;a\n", rest: "x\r\n", status: 400, reason: ReasonBareLF},
	{name: "control in an extension", raw: "1;abcdefghij\x01", rest: "\r\nx\r\n", status: 400, reason: ReasonBadChunkExtension},
	{name: "bare CR in an extension", raw: "1;a\rb", rest: "\r\nx\r\n", status: 400, reason: ReasonBareCR},
	{name: "line too long", raw: "1;abcd", rest: "efghijk\r\nx\r\n", limits: Limits{ChunkLine: 5}, status: 400, reason: ReasonChunkLineTooLong},
	{name: "line too long, then wrong", raw: "1;abcd", rest: "\x00", limits: Limits{ChunkLine: 5}, status: 400, reason: ReasonChunkLineTooLong},
	{name: "size too long", raw: "001", rest: "\r\nx\r\n", limits: Limits{ChunkLine: 2}, status: 400, reason: ReasonChunkLineTooLong},
	{name: "no CRLF behind the data", raw: "1\r\nxy", rest: "\r\n", status: 400, reason: ReasonBadChunkEnd},
	{name: "bare LF behind the data", raw: "1\r\nx\n", rest: "0\r\n\r\n", status: 400, reason: ReasonBareLF},
	{name: "bare CR behind the data", raw: "1\r\nx\r0", rest: "\r\n\r\n", status: 400, reason: ReasonBadChunkEnd},
	{name: "excess", raw: "1;eeeeeeeeeeeeeeeeeeeeeeeeeeeeee\r\nx\r\n1;eeeeeeeeeeeeeeeeeeeeeeeeeeeeee\r\n", rest: "x\r\n0\r\n\r\n",
		limits: Limits{ChunkExcess: 20}, status: 400, reason: ReasonChunkExcess},
	{name: "excess of the last chunk", raw: "0;eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee\r\n", rest: "\r\n",
		limits: Limits{ChunkExcess: 20}, status: 400, reason: ReasonChunkExcess},
	{name: "bare LF for the last line", raw: "0\r\n\n", status: 400, reason: ReasonBareLF},
	{name: "bare CR for the last line", raw: "0\r\n\r0", rest: "\r\n", status: 400, reason: ReasonBareCR},
	{name: "bare CR behind a trailer", raw: "0\r\na: b\r\n\r0", rest: "\r\n", status: 400, reason: ReasonBareCR},
	{name: "request behind a missing CRLF", raw: "0\r\nGET ", rest: "/ HTTP/1.1\r\n", status: 400, reason: ReasonSpaceBeforeColon, detail: "GET"},
	{name: "fold in a trailer", raw: "0\r\na: b\r\n ", rest: "c\r\n\r\n", status: 400, reason: ReasonObsFold},
	{name: "control in a trailer", raw: "0\r\nabc: d\x00", rest: "\r\n\r\n", status: 400, reason: ReasonBadFieldValue, detail: "abc"},
	{name: "bare LF behind a trailer", raw: "0\r\nabc: d\n", rest: "\r\n", status: 400, reason: ReasonBareLF, detail: "abc"},
	{name: "trailer name too long", raw: "0\r\nabcd", rest: ": e\r\n\r\n", limits: Limits{HeaderName: 3}, status: 431, reason: ReasonFieldNameTooLong, detail: "abc"},
	{name: "too many trailers", raw: "0\r\na:\r\nb", rest: ":\r\n\r\n", limits: Limits{HeaderCount: 1}, status: 431, reason: ReasonTooManyFields},
	{name: "trailer too long", raw: "0\r\na: b\r\n\r\n", limits: Limits{Trailer: 7}, status: 431, reason: ReasonTrailerTooLong},
	{name: "trailer too long, then wrong", raw: "0\r\na: bcde", rest: "\x00", limits: Limits{Trailer: 6}, status: 431, reason: ReasonTrailerTooLong},
}

func TestBadBodies(t *testing.T) {
	seen := map[Reason]bool{}
	for _, test := range badBodies {
		t.Run(test.name, func(t *testing.T) {
			limits := test.limits.WithDefaults()
			if _, err := decodeEveryWay(t, test.raw[:len(test.raw)-1], &limits); err != ErrIncomplete {
				t.Fatalf("without the offending byte: %v", err)
			}
			for _, rest := range []string{"", test.rest, test.rest + strings.Repeat("x", 40)} {
				_, err := decodeEveryWay(t, test.raw+rest, &limits)
				var e *Error
				if !errors.As(err, &e) || *e != (Error{test.status, test.reason, test.detail}) {
					t.Errorf("%v, want %d %v %q", err, test.status, test.reason, test.detail)
				}
			}
			seen[test.reason] = true
		})
	}
	for r := Reason(ReasonBadChunkSize); r < NumReasons; r++ {
		if !seen[r] {
			t.Errorf("no body is refused for %v", r)
		}
	}
}

// TestChunkExcessOfOneByteChunks: with the default limits a body of one-byte
// chunks with long extensions is refused before it has cost much.
func TestChunkExcessOfOneByteChunks(t *testing.T) {
	raw := strings.Repeat("1;"+strings.Repeat("e", 1000)+"\r\nx\r\n", 100)
	got, err := decodeAt(new(ChunkedDecoder), raw, nil)
	var e *Error
	if !errors.As(err, &e) || e.Reason != ReasonChunkExcess || len(got.Data) > 20 {
		t.Errorf("%d bytes of data, %v", len(got.Data), err)
	}
}

func TestDecodeAliases(t *testing.T) {
	src := []byte("5\r\nhello\r\n0\r\n\r\n")
	data, n, err := new(ChunkedDecoder).Decode(src, nil)
	if err != nil || n != 8 || &data[0] != &src[3] || cap(data) != 5 {
		t.Errorf("%q with room for %d, %d, %v", data, cap(data), n, err)
	}
}

func TestNoAllocationsChunked(t *testing.T) {
	limits := Limits{}.WithDefaults()
	src := []byte(chunkedBody(100, 100))
	var d ChunkedDecoder
	if allocs := testing.AllocsPerRun(100, func() { decodeAll(&d, src, &limits) }); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// chunkedBody is a body of count chunks of size bytes.
func chunkedBody(count, size int) string {
	return strings.Repeat(fmt.Sprintf("%x\r\n%s\r\n", size, strings.Repeat("d", size)), count) + "0\r\n\r\n"
}

// decodeAll returns how much data is in src.
func decodeAll(d *ChunkedDecoder, src []byte, limits *Limits) (total int) {
	d.Reset()
	for {
		data, n, err := d.Decode(src, limits)
		total += len(data)
		if err != nil {
			return total
		}
		src = src[n:]
	}
}
