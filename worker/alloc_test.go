package worker

import (
	"bytes"
	"io"
	"runtime"
	"runtime/debug"
	"testing"
)

// allocations counts what the server allocates for each of many requests that
// one client sends, one after the other or in pipelines.
func allocations(t *testing.T, request string, batch int) float64 {
	t.Helper()
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	ts := startServer(t, hello)
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
	const allowed = 5.05 // the timer of the Date line allocates once a second
	for _, test := range []struct {
		name, request string
		batch         int
	}{
		{"one by one", get, 1},
		{"pipelined", get, 16},
		{"with fields", getPath("/", "User-Agent: wrk", "Accept: */*", "X-Own: y"), 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			if n := allocations(t, test.request, test.batch); n > allowed {
				t.Errorf("%.2f allocations per request, want at most 5", n)
			} else {
				t.Logf("%.2f allocations per request", n)
			}
		})
	}
}
