package load

import (
	"fmt"

	"github.com/catamount-server/catamount/bench/internal/stats"
)

// Result is what a load counted.
type Result struct {
	Requests int64 // completed, whatever their status
	Late     int64 // of them: those that were under way at the end, and were waited for
	Seconds  float64
	Bad      int64 // answers that were not 200
	Timeouts int64 // answers that did not come in time
	Broken   int64 // connects, reads and writes that failed
	// Latencies are those of the requests, nil from wrk. In closed loops an
	// answer that did not come in time counts with the time that was waited: a
	// server does not get better percentiles by not answering.
	Latencies *stats.Latencies
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
