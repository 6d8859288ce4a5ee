package load

import (
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Result is what a load counted.
type Result struct {
	Requests int64 // completed, whatever their status
	Late     int64 // of them: those that were under way at the end, and were waited for
	Seconds  float64
	Bad      int64   // answers that were not 200
	Timeouts int64   // answers that did not come in time
	Broken   int64   // connects, reads and writes that failed
	Latency  Latency // zero from wrk
}

// Rate is in requests per second; what was late does not count.
func (r Result) Rate() float64 { return float64(r.Requests-r.Late) / r.Seconds }

// Failed is the number of requests that did not get their answer.
func (r Result) Failed() int64 { return r.Bad + r.Timeouts + r.Broken }

// Clean refuses a result of which some requests failed: a server must not win
// by answering errors.
func (r Result) Clean() error {
	if r.Requests == 0 || r.Failed() > 0 {
		return fmt.Errorf("%d requests; answers that were not 200: %d, not in time: %d, broken connections: %d",
			r.Requests, r.Bad, r.Timeouts, r.Broken)
	}
	return nil
}

// Latency is a distribution, in microseconds.
type Latency struct {
	P50, P90, P99, P999, P9999, Max float64
}

// histogram counts latencies up to a minute in steps of a thousandth.
func histogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, time.Minute.Nanoseconds(), 3) }

func latencyOf(h *hdrhistogram.Histogram) Latency {
	at := func(percent float64) float64 { return float64(h.ValueAtQuantile(percent)) / 1e3 }
	return Latency{P50: at(50), P90: at(90), P99: at(99), P999: at(99.9), P9999: at(99.99), Max: float64(h.Max()) / 1e3}
}
