package stats

import (
	"encoding/json"
	"testing"
	"time"
)

// TestPool: a stall that fills one round in a hundred requests is no p99 of all
// rounds together, other than of that round.
func TestPool(t *testing.T) {
	parts := []*Latencies{NewLatencies(), NewLatencies(), NewLatencies()}
	for _, part := range parts {
		part.Record(time.Millisecond, 980)
	}
	parts[0].Record(time.Second, 20)
	parts[1].Record(2*time.Millisecond, 20)
	parts[2].Record(2*time.Millisecond, 20)
	text, err := json.Marshal(parts)
	if err != nil {
		t.Fatal(err)
	}
	var kept []*Latencies
	if err := json.Unmarshal(text, &kept); err != nil {
		t.Fatal(err)
	}
	if got := kept[0].Percentile(99); got < 999e3 || got > 1001e3 {
		t.Errorf("p99 of the round with the stall: %v µs, want a second", got)
	}
	all := Pool(kept)
	if got := all.Percentile(99); got < 1998 || got > 2002 {
		t.Errorf("p99 of all: %v µs, want two milliseconds", got)
	}
	if all.Count() != 3000 || kept[1].Count() != 1000 {
		t.Errorf("counts %d and %d, want 3000 and still 1000", all.Count(), kept[1].Count())
	}
}

// TestLatenciesBounds: what is outside counts as the bound.
func TestLatenciesBounds(t *testing.T) {
	l := NewLatencies()
	if got := l.Percentile(50); got != 0 {
		t.Errorf("of nothing: %v µs", got)
	}
	l.Record(-time.Second, 1)
	l.Record(time.Hour, 1)
	if low, high := l.Percentile(50), l.Percentile(100); low != 0.001 || high < 59.9e6 || high > 60.1e6 {
		t.Errorf("from %v to %v µs, want a nanosecond and a minute", low, high)
	}
	if err := new(Latencies).UnmarshalText([]byte("nonsense")); err == nil {
		t.Error("nonsense was accepted")
	}
}
