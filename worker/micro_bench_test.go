package worker

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/catamount-server/catamount/parser"
)

// benchParts are what making a request and an answer need of a server.
func benchParts() (*Server, *slot) {
	s := &Server{options: Options{KeepAlive: true}, aliveLine: "Keep-Alive: timeout=65\r\n"}
	s.usualEnd = aliveFields(s.aliveLine) + "\r\n"
	s.gate.table.Store(&[]*listener{{base: context.Background()}})
	sl := new(slot)
	sl.Value.peer = address{family: 4, ip: [16]byte{127, 0, 0, 1}, port: 49152}
	return s, sl
}

var benchRequests = []struct{ name, head string }{
	{"bare", short},
	{"fields8", browserRequest},
	{"fields30", manyFieldsRequest},
}

// BenchmarkRequest makes requests of heads that have been parsed.
func BenchmarkRequest(b *testing.B) {
	for _, bench := range benchRequests {
		b.Run(bench.name, func(b *testing.B) {
			s, sl := benchParts()
			var head parser.Head
			raw := []byte(bench.head)
			if _, err := head.Parse(raw, nil); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.newExchange(sl, &head, raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkResponse makes answers, from the handler's first call to the bytes
// that would be sent.
func BenchmarkResponse(b *testing.B) {
	for _, bench := range []struct {
		name    string
		handler http.HandlerFunc
	}{
		{"plain", plainHello},
		{"typed", typedHello},
		{"fields5", func(w http.ResponseWriter, r *http.Request) {
			h := w.Header()
			h["Content-Type"] = []string{"application/json"}
			h["Cache-Control"] = []string{"no-store"}
			h["Vary"] = []string{"Accept-Encoding"}
			h["X-Request-Id"] = []string{"5f1c9f8e-2b7a-4c1d-9d53-6f0f3f1f2a11"}
			h["Etag"] = []string{`"abc123"`}
			plainHello(w, r)
		}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			s, sl := benchParts()
			defer s.date.stop()
			var head parser.Head
			n, err := head.Parse([]byte(short), nil)
			if err != nil {
				b.Fatal(err)
			}
			x, err := s.newExchange(sl, &head, []byte(short)[:n])
			if err != nil {
				b.Fatal(err)
			}
			sc := newScratch(0, nil)
			b.ReportAllocs()
			for b.Loop() {
				w := &x.response
				*w = response{}
				w.init(x, &head)
				w.scratch, sc.hold = sc, sc.hold[:0]
				bench.handler(w, &x.request)
				w.finish()
				sc.cur.B = sc.cur.B[:0]
			}
		})
	}
}

// BenchmarkTrickle takes a head byte by byte, as slow clients send it: the time
// is that of one byte.
func BenchmarkTrickle(b *testing.B) {
	s, sl := benchParts()
	s.options.Limits = s.options.Limits.WithDefaults()
	s.options.Timeouts.Head = time.Minute
	const head = "GET / HTTP/1.1\r\nHost: slow\r\nX-Trickle: abcdefghijklmnopqrstuvwxyz"
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if at := i % len(head); at == 0 {
			s.discard(&sl.Value)
		} else if x, err := s.TryToFinish(sl, &s.head, []byte(head[at-1:at]), int64(i)); x != nil || err != nil {
			b.Fatal(x, err)
		}
	}
}
