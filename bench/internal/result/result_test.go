package result

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/catamount-server/catamount/bench/internal/stats"
)

func section(scenario string) Section {
	return Section{Scenario: scenario, Rounds: 2, Samples: []Sample{
		{Row: "a", Server: "x", Round: 1, Values: map[string]float64{"cpu": 1}},
		{Row: "a", Server: "y", Round: 1, Values: map[string]float64{"cpu": 2}},
		{Row: "b", Server: "x", Round: 1, Values: map[string]float64{"cpu": 5}},
		{Row: "a", Server: "x", Round: 2, Error: "broken", Values: map[string]float64{"cpu": 100}},
		{Row: "a", Server: "y", Round: 2, Values: map[string]float64{"cpu": 4}},
	}}
}

func TestSeries(t *testing.T) {
	s := section("hello")
	if got := s.Series("a", "y", "cpu"); !slices.Equal(got, []float64{2, 4}) {
		t.Errorf("%v, want 2 and 4", got)
	}
	if got := s.Series("a", "x", "cpu"); got[0] != 1 || !math.IsNaN(got[1]) {
		t.Errorf("%v: a round with an error counts", got)
	}
	if got := s.Series("a", "x", "none"); len(got.Valid()) != 0 {
		t.Errorf("%v for a figure that there is not", got)
	}
	if got := s.Rows(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("rows %v", got)
	}
	if got := s.Servers("b"); !slices.Equal(got, []string{"x"}) {
		t.Errorf("servers of b: %v", got)
	}
	if got := s.Servers(""); !slices.Equal(got, []string{"x", "y"}) {
		t.Errorf("servers: %v", got)
	}
	if got := s.Failed(); len(got) != 1 || got[0].Round != 2 {
		t.Errorf("failed: %v", got)
	}
}

// TestMerge: a later run replaces the scenario, others stay, in their order.
func TestMerge(t *testing.T) {
	order := []string{"hello", "json", "idle"}
	r := &Results{}
	r.Merge(section("idle"), order)
	r.Merge(section("hello"), order)
	again := section("idle")
	again.Rounds = 7
	r.Merge(again, order)
	if len(r.Sections) != 2 || r.Sections[0].Scenario != "hello" || r.Sections[1].Rounds != 7 {
		t.Errorf("%+v", r.Sections)
	}

	directory := t.TempDir()
	if err := r.Save(directory); err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(directory)
	if err != nil || len(loaded.Sections) != 2 || loaded.Find("idle").Rounds != 7 || loaded.Find("json") != nil {
		t.Errorf("%+v, error %v", loaded, err)
	}
}

func TestLoadRefusesNonsense(t *testing.T) {
	if r, err := Load(t.TempDir()); err != nil || len(r.Sections) != 0 {
		t.Errorf("of an empty directory: %+v, error %v", r, err)
	}
	directory := t.TempDir()
	if err := os.WriteFile(filepath.Join(directory, FileName), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(directory); err == nil {
		t.Error("half a file was accepted")
	}
}

// TestFigure: percentiles are those of all rounds together where all have their
// latencies; a round that failed has no part.
func TestFigure(t *testing.T) {
	s := Section{Rounds: 4}
	for round, slow := range []int{20, 0, 0} {
		l := stats.NewLatencies()
		l.Record(time.Millisecond, 1000-slow)
		l.Record(time.Second, slow)
		s.Samples = append(s.Samples, Sample{Row: "a", Server: "x", Round: round + 1, Latencies: l,
			Values: map[string]float64{"p99": l.Percentile(99), "cpu": float64(round)}})
	}
	broken := stats.NewLatencies()
	broken.Record(time.Minute, 1000)
	s.Samples = append(s.Samples, Sample{Row: "a", Server: "x", Round: 4, Error: "broken", Latencies: broken})
	if got := s.Figure("a", "x", "p99"); !got.Pooled || got.Value < 999 || got.Value > 1001 {
		t.Errorf("p99: %+v, want a millisecond of three rounds", got)
	}
	if got := s.Figure("a", "x", "cpu"); got.Pooled || got.Value != 1 {
		t.Errorf("cpu: %+v, want the median", got)
	}
	s.Samples[0].Latencies = nil // of an earlier version
	if got := s.Figure("a", "x", "p99"); got.Pooled || got.Value > 1001 {
		t.Errorf("p99 without all latencies: %+v, want the median of the rounds", got)
	}
}
