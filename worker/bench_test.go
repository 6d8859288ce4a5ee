package worker

import (
	"context"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/catamount-server/catamount/reactor"
)

// benchPoller reports every client readable in each batch: a loaded server
// without its kernel.
type benchPoller struct {
	clients []reactor.Event
	batches chan int // how many batches to run
	left    int
	// answered and asked keep a batch from beginning before the last one has
	// been answered: a client has one request at a time.
	answered, asked atomic.Int64
}

func (p *benchPoller) Add(fd int, generation uint32) error {
	p.clients = append(p.clients, reactor.Event{FD: int32(fd), Generation: generation, Events: reactor.Readable | reactor.Writable})
	return nil
}
func (p *benchPoller) AddListener(int, uint32) error { return nil }
func (p *benchPoller) Remove(int) error              { return nil }
func (p *benchPoller) Wake() error                   { return nil }
func (p *benchPoller) Close() error                  { return nil }
func (p *benchPoller) Wait(events []reactor.Event, timeout time.Duration) (int, error) {
	if p.left == 0 {
		n, ok := <-p.batches
		if !ok {
			return 0, io.EOF
		}
		p.left = n
	}
	if p.answered.Load() < p.asked.Load() {
		runtime.Gosched()
		return 0, nil
	}
	p.left--
	p.asked.Add(int64(len(p.clients)))
	return copy(events, p.clients), nil
}

const benchClients = 64

// benchServer serves requests that a fake kernel hands it, and reports when n
// batches of benchClients requests have been answered.
func benchServer(tb testing.TB, request string, handler http.HandlerFunc, changes ...func(*Options)) (run func(batches int)) {
	poller := &benchPoller{batches: make(chan int)}
	var target atomic.Int64
	done := make(chan struct{})
	fakes := kernelSockets()
	fakes.receive = func(_ int, p []byte) (int, error) { return copy(p, request), nil }
	fakes.send = func(_ int, a, b []byte) (int, error) {
		if poller.answered.Add(1) == target.Load() {
			done <- struct{}{}
		}
		return len(a) + len(b), nil
	}
	fakes.close = func(int) error { return nil }
	options := Options{
		Handler: handler, MaxThreads: 16, QueueRequests: true, KeepAlive: true, MaxFastInline: 32,
		BodyMemory: 1 << 17, OutputMemory: 1 << 18, HeapFloor: 16 << 20,
		Timeouts: Timeouts{FirstByte: time.Minute, Idle: 75 * time.Second, AdvertisedIdle: 65 * time.Second, Head: time.Minute},
		poller:   poller, sockets: fakes,
	}
	for _, change := range changes {
		change(&options)
	}
	s, err := NewServer(options)
	if err != nil {
		tb.Fatal(err)
	}
	l := &listener{base: s.options.BaseContext}
	s.gate.table.Store(&[]*listener{l})
	poller.left = 1
	for fd := range benchClients {
		peer := address{family: 4, ip: [16]byte{127, 0, 0, 1}, port: uint16(fd)}
		if err := s.reactor.Do(func() { s.adopt(l, fd, peer, nil) }); err != nil {
			tb.Fatal(err)
		}
	}
	poller.batches <- 1
	tb.Cleanup(func() {
		close(poller.batches)
		<-s.finished
		s.log.close()
		s.date.stop()
		_ = s.pool.Shutdown(context.Background())
	})
	return func(batches int) {
		target.Store(poller.answered.Load() + int64(batches)*benchClients)
		poller.batches <- batches
		<-done
	}
}

const short = "GET / HTTP/1.1\r\nHost: 127.0.0.1:9292\r\n\r\n"

// browserRequest has eight fields, manyFieldsRequest thirty, as what comes
// through two proxies has.
const (
	browserRequest = "GET /articles/2026/reactor?page=2 HTTP/1.1\r\nHost: www.example.com\r\n" + browserFields + "\r\n"
	browserFields  = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n" +
		"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n" +
		"Accept-Encoding: gzip, deflate, br, zstd\r\nConnection: keep-alive\r\nCookie: session=0123456789abcdef0123456789abcdef\r\n" +
		"Upgrade-Insecure-Requests: 1\r\n"
	manyFieldsRequest = "GET / HTTP/1.1\r\nHost: www.example.com\r\n" + browserFields +
		"Referer: https://www.example.com/articles/2026\r\nCache-Control: max-age=0\r\nSec-Fetch-Dest: document\r\n" +
		"Sec-Fetch-Mode: navigate\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-User: ?1\r\nPriority: u=0, i\r\nDnt: 1\r\nTe: trailers\r\n" +
		"If-None-Match: \"abc123def456\"\r\nIf-Modified-Since: Wed, 25 Nov 2026 08:00:00 GMT\r\nX-Forwarded-For: 203.0.113.7, 198.51.100.2\r\n" +
		"X-Forwarded-Proto: https\r\nX-Forwarded-Host: www.example.com\r\nX-Request-Id: 5f1c9f8e-2b7a-4c1d-9d53-6f0f3f1f2a11\r\n" +
		"X-Real-Ip: 203.0.113.7\r\nTraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nTracestate: vendor=value\r\n" +
		"X-Own-One: one\r\nX-Own-Two: two\r\nX-Own-Three: three\r\nAuthorization: Bearer 0123456789abcdef0123456789abcdef\r\n\r\n"
)

func plainHello(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "Hello, World!") }

func typedHello(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(w, "Hello, World!")
}

// BenchmarkPipeline serves sixteen requests that come in one piece.
func BenchmarkPipeline(b *testing.B) {
	for _, bench := range []struct {
		name    string
		handler http.HandlerFunc
	}{{"plain", plainHello}, {"typed", typedHello}} {
		b.Run(bench.name, func(b *testing.B) {
			run := benchServer(b, strings.Repeat(short, 16), bench.handler)
			run(1)
			b.ReportAllocs()
			b.ResetTimer()
			run((b.N + 16*benchClients - 1) / (16 * benchClients))
		})
	}
}

func BenchmarkServe(b *testing.B) {
	for _, bench := range []struct {
		name, request string
		handler       http.HandlerFunc
	}{
		{"wrk", short, plainHello},
		{"typed", short, typedHello},
		{"browser", browserRequest, plainHello},
		{"fields30", manyFieldsRequest, typedHello},
	} {
		b.Run(bench.name, func(b *testing.B) {
			run := benchServer(b, bench.request, bench.handler)
			run(1)
			b.ReportAllocs()
			b.ResetTimer()
			run((b.N + benchClients - 1) / benchClients)
		})
	}
}
