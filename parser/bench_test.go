package parser

import (
	"fmt"
	"strings"
	"testing"
)

const wrkRequest = "GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nConnection: keep-alive\r\n\r\n"

const browser8Request = "GET /articles/2024/07/introduction?ref=home&page=2 HTTP/1.1\r\n" +
	"Host: www.example.com\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/png,image/svg+xml,*/*;q=0.8\r\n" +
	"Accept-Language: en-US,en;q=0.5\r\n" +
	"Accept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Connection: keep-alive\r\n" +
	"Cookie: session=9f8b1c2d3e4f5a6b7c8d9e0f1a2b3c4d; theme=dark; consent=yes\r\n" +
	"Upgrade-Insecure-Requests: 1\r\n\r\n"

const chromeRequest = "GET /articles/2024/07/introduction?ref=home&page=2 HTTP/1.1\r\n" +
	"Host: www.example.com\r\n" +
	"Connection: keep-alive\r\n" +
	"Cache-Control: max-age=0\r\n" +
	"sec-ch-ua: \"Not)A;Brand\";v=\"99\", \"Google Chrome\";v=\"127\", \"Chromium\";v=\"127\"\r\n" +
	"sec-ch-ua-mobile: ?0\r\n" +
	"sec-ch-ua-platform: \"Linux\"\r\n" +
	"Upgrade-Insecure-Requests: 1\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/127.0.0.0 Safari/537.36\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8\r\n" +
	"Sec-Fetch-Site: same-origin\r\n" +
	"Sec-Fetch-Mode: navigate\r\n" +
	"Sec-Fetch-User: ?1\r\n" +
	"Sec-Fetch-Dest: document\r\n" +
	"Accept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Accept-Language: en-US,en;q=0.9\r\n\r\n"

func headers30Request() string {
	var b strings.Builder
	b.WriteString("POST /api/v1/things HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 0\r\n")
	for i := range 28 {
		fmt.Fprintf(&b, "X-Custom-Field-%d: some value of number %d\r\n", i, i*i)
	}
	b.WriteString("\r\n")
	return b.String()
}

func BenchmarkParse(b *testing.B) {
	limits := Limits{}.WithDefaults()
	for _, bench := range []struct{ name, request string }{
		{"wrk", wrkRequest},
		{"browser8", browser8Request},
		{"chrome15", chromeRequest},
		{"headers30", headers30Request()},
	} {
		b.Run(bench.name, func(b *testing.B) {
			buf := []byte(bench.request)
			var h Head
			b.ReportAllocs()
			b.SetBytes(int64(len(buf)))
			for b.Loop() {
				h.Reset()
				if _, err := h.Parse(buf, &limits); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	limits := Limits{}.WithDefaults()
	for _, bench := range []struct{ count, size int }{{1, 16}, {100, 100}, {8, 8192}} {
		b.Run(fmt.Sprintf("%dx%d", bench.count, bench.size), func(b *testing.B) {
			src := []byte(chunkedBody(bench.count, bench.size))
			var d ChunkedDecoder
			b.ReportAllocs()
			b.SetBytes(int64(bench.count * bench.size))
			for b.Loop() {
				if decodeAll(&d, src, &limits) != bench.count*bench.size {
					b.Fatal("data is lost")
				}
			}
		})
	}
}

// BenchmarkParseByteByByte is the slowest client there is; compare its ns/op
// with the number of bytes.
func BenchmarkParseByteByByte(b *testing.B) {
	limits := Limits{}.WithDefaults()
	buf := []byte(chromeRequest)
	var h Head
	b.ReportAllocs()
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		h.Reset()
		for n := 1; n < len(buf); n++ {
			if _, err := h.Parse(buf[:n], &limits); err != ErrIncomplete {
				b.Fatal(err)
			}
		}
		if _, err := h.Parse(buf, &limits); err != nil {
			b.Fatal(err)
		}
	}
}
