package result

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/catamount-server/catamount/bench/internal/measure"
	"github.com/catamount-server/catamount/bench/internal/stats"
)

// FileName is the file of results in the directory of a report.
const FileName = "results.json"

// Results are all sections of a report, in the order of the scenarios.
type Results struct {
	Sections []Section `json:"sections"`
}

// Section is one run of one scenario.
type Section struct {
	Scenario string            `json:"scenario"`
	Time     time.Time         `json:"time"`
	Machine  measure.Machine   `json:"machine"`
	Load     string            `json:"load"` // what made it, with its version
	Versions map[string]string `json:"versions"`
	Skipped  map[string]string `json:"skipped,omitempty"` // servers that were asked for, with the reason
	Quick    bool              `json:"quick,omitempty"`
	Rounds   int               `json:"rounds"`
	Duration time.Duration     `json:"duration_ns"` // of one measurement
	Samples  []Sample          `json:"samples"`
}

// Sample is one measurement. It has an Error when it does not count.
type Sample struct {
	Row    string             `json:"row"`
	Server string             `json:"server"`
	Round  int                `json:"round"` // from 1
	Values map[string]float64 `json:"values,omitempty"`
	Error  string             `json:"error,omitempty"`
	// Latencies are those of a load at a constant rate.
	Latencies *stats.Latencies `json:"latencies,omitempty"`
}

// Load reads the results in directory; there are none when it has no file.
func Load(directory string) (*Results, error) {
	path := filepath.Join(directory, FileName)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &Results{}, nil
	}
	if err != nil {
		return nil, err
	}
	r := &Results{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// Save writes the results into directory, whole or not at all.
func (r *Results) Save(directory string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	path := filepath.Join(directory, FileName)
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Merge puts a section in the place of the scenario's earlier one; order has
// the names of all scenarios.
func (r *Results) Merge(s Section, order []string) {
	r.Sections = slices.DeleteFunc(r.Sections, func(old Section) bool { return old.Scenario == s.Scenario })
	r.Sections = append(r.Sections, s)
	slices.SortStableFunc(r.Sections, func(a, b Section) int {
		return slices.Index(order, a.Scenario) - slices.Index(order, b.Scenario)
	})
}

// Find returns the section of a scenario, or nil.
func (r *Results) Find(scenario string) *Section {
	for i := range r.Sections {
		if r.Sections[i].Scenario == scenario {
			return &r.Sections[i]
		}
	}
	return nil
}

// Series returns a figure of a server in a row, a value a round; NaN where a
// run failed or has no such figure.
func (s *Section) Series(row, server, key string) stats.Series {
	series := make(stats.Series, s.Rounds)
	for i := range series {
		series[i] = math.NaN()
	}
	for _, sample := range s.Samples {
		value, ok := sample.Values[key]
		if sample.Row == row && sample.Server == server && sample.Error == "" && ok && sample.Round >= 1 && sample.Round <= s.Rounds {
			series[sample.Round-1] = value
		}
	}
	return series
}

// Percentiles are the figures that are percentiles of a distribution, by key.
var Percentiles = map[string]float64{"p50": 50, "p90": 90, "p99": 99, "p999": 99.9, "p9999": 99.99, "max": 100}

// Figure returns a figure of a server in a row over all rounds: the percentile
// of the latencies of all rounds together where those are kept, else the median
// of the rounds.
func (s *Section) Figure(row, server, key string) stats.Figure {
	series := s.Series(row, server, key)
	percent, ok := Percentiles[key]
	var parts []*stats.Latencies
	for _, sample := range s.Samples {
		if sample.Row == row && sample.Server == server && sample.Error == "" && sample.Latencies != nil {
			parts = append(parts, sample.Latencies)
		}
	}
	if !ok || len(parts) == 0 || len(parts) != len(series.Valid()) {
		return stats.MedianOf(series)
	}
	return stats.Figure{Value: stats.Pool(parts).Percentile(percent), Pooled: true, Rounds: series}
}

// Rows returns the names of the rows, in their order.
func (s *Section) Rows() []string {
	return unique(s.Samples, func(sample Sample) (string, bool) { return sample.Row, true })
}

// Servers returns the servers that took part in a row, in their order; those
// of all rows when row is "".
func (s *Section) Servers(row string) []string {
	return unique(s.Samples, func(sample Sample) (string, bool) { return sample.Server, row == "" || sample.Row == row })
}

func unique(samples []Sample, name func(Sample) (string, bool)) []string {
	var names []string
	for _, sample := range samples {
		if n, ok := name(sample); ok && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

// Failed returns the samples that do not count.
func (s *Section) Failed() []Sample {
	var failed []Sample
	for _, sample := range s.Samples {
		if sample.Error != "" {
			failed = append(failed, sample)
		}
	}
	return failed
}
