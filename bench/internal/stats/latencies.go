package stats

import (
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// longest is the longest latency that is told apart; what took longer counts as
// this.
const longest = time.Minute

// Latencies is a distribution of latencies, in steps of a thousandth. As text
// it is HdrHistogram's compressed format, so that it can be kept and pooled
// with others: percentiles themselves cannot be averaged.
type Latencies struct {
	counts *hdrhistogram.Histogram
}

// NewLatencies returns an empty distribution.
func NewLatencies() *Latencies {
	return &Latencies{hdrhistogram.New(1, longest.Nanoseconds(), 3)}
}

// Pool returns the distribution of all that some distributions have counted.
func Pool(parts []*Latencies) *Latencies {
	all := NewLatencies()
	for _, part := range parts {
		all.counts.Merge(part.counts)
	}
	return all
}

// Record counts n latencies of d.
func (l *Latencies) Record(d time.Duration, n int) {
	// It cannot fail: the value is within the bounds.
	_ = l.counts.RecordValues(min(max(d.Nanoseconds(), 1), longest.Nanoseconds()), int64(n))
}

// Count returns how many latencies were counted.
func (l *Latencies) Count() int64 { return l.counts.TotalCount() }

// Percentile returns what so many percent do not exceed, in microseconds; 100
// is the longest, and 0 of none.
func (l *Latencies) Percentile(percent float64) float64 {
	return float64(l.counts.ValueAtQuantile(percent)) / 1e3
}

// MarshalText writes HdrHistogram's V2 format.
func (l *Latencies) MarshalText() ([]byte, error) {
	return l.counts.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
}

// UnmarshalText reads it.
func (l *Latencies) UnmarshalText(text []byte) error {
	counts, err := hdrhistogram.Decode(text)
	if err != nil {
		return fmt.Errorf("latencies: %w", err)
	}
	l.counts = counts
	return nil
}
