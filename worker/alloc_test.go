package worker

import (
	"bytes"
	"io"
	"net/http"
	"runtime"
	"runtime/debug"
	"testing"
)

// allocations counts what the server allocates for each of many requests that
// one client sends, one after the other or in pipelines.
func allocations(t *testing.T, handler http.HandlerFunc, request string, batch int) float64 {
	t.Helper()
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	ts := startServer(t, handler)
	c := ts.dial()
	input := bytes.Repeat([]byte(request), batch)
	c.send(request)
	_, _ = c.reader.Peek(1)
	answers := make([]byte, batch*c.reader.Buffered())
	_, _ = c.reader.Discard(c.reader.Buffered())
	exchange := func(rounds int) {
		for range rounds {
			if _, err := c.Write(input); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, answers); err != nil {
				t.Fatal(err)
			}
		}
	}
	const requests = 4000
	exchange(requests / 10 / batch) // pools fill, stacks grow
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	exchange(requests / batch)
	runtime.ReadMemStats(&after)
	if !bytes.HasSuffix(answers, []byte("Hello, World!")) {
		t.Fatalf("last answer %q", answers)
	}
	return float64(after.Mallocs-before.Mallocs) / float64(requests/batch*batch)
}

func TestAllocationsOfAGet(t *testing.T) {
	// The exchange, and the header map; with fields the map's table as well. A
	// handler's own field takes three: map, table, and the slice of values.
	const spare = 0.05 // the timer of the Date line allocates once a second
	fields := getPath("/", "User-Agent: wrk", "Accept: */*", "X-Own: y")
	for _, test := range []struct {
		name    string
		handler http.HandlerFunc
		request string
		batch   int
		want    float64
	}{
		{"one by one", plainHello, get, 1, 2},
		{"pipelined", plainHello, get, 16, 2},
		{"with fields", plainHello, fields, 1, 3},
		{"with fields in lower case", plainHello, getPath("/", "user-agent: wrk", "accept: */*", "x-own: y"), 1, 3},
		{"a browser's", plainHello, browserRequest, 1, 3},
		{"with a Content-Type of the handler's", typedHello, get, 1, 5},
		{"pipelined, with a Content-Type of the handler's", typedHello, get, 16, 5},
	} {
		t.Run(test.name, func(t *testing.T) {
			if n := allocations(t, test.handler, test.request, test.batch); n > test.want+spare {
				t.Errorf("%.2f allocations per request, want at most %v", n, test.want)
			}
		})
	}
}
