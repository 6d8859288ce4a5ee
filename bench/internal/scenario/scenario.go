package scenario

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/catamount-server/catamount/bench/internal/load"
	"github.com/catamount-server/catamount/bench/internal/measure"
	"github.com/catamount-server/catamount/bench/internal/result"
	"github.com/catamount-server/catamount/bench/internal/server"
	"github.com/catamount-server/catamount/bench/internal/stats"
)

// Scenario is a question and how it is answered.
type Scenario struct {
	Name     string
	Question string
	Method   string // what is done, beyond what holds for all
	Load     string // what makes it; "": wrk where it is installed, else closed loops
	Rounds   int    // by default
	Rows     []Row
	Columns  []Column // the first is the figure that is compared and plotted
	Plot     Plot
}

// Row is one variant of a scenario.
type Row struct {
	Name    string
	X       float64 // where it stands in a plot of lines
	Servers []string
	Workers int // of a cluster; 0: two
	measure func(*turn) (Values, error)
}

// Values are the figures of one measurement by the keys of columns.
type Values map[string]float64

// Column is one figure.
type Column struct {
	Key, Title, Unit string
	Digits           int // after the point
	MoreIsBetter     bool
}

// Plot is how a scenario is drawn.
type Plot int

// The plots.
const (
	Bars        Plot = iota // a chart a row, a bar a server
	Lines                   // one chart, over X, a line a server
	Percentiles             // a chart a row, over the percentiles p50 to p9999
)

// Settings are what holds for all scenarios of a run.
type Settings struct {
	Servers   []string // in the order of their turns
	Rounds    int      // 0: the scenario's own
	Duration  time.Duration
	Quick     bool
	Directory string // for scratch, with the file of the app File
	Wrk       bool   // it is installed
	// Progress is told what is measured, and how it went.
	Progress func(scenario, row, server string, round, rounds int, outcome string)
}

// turn is one measurement of one server.
type turn struct {
	Settings
	server  server.Server
	workers int // of a cluster; 0: two
	// latencies, where the row measures them, are kept with its values: those of
	// all rounds are pooled.
	latencies *stats.Latencies
}

// TakesPart reports whether any of the servers has a row in the scenario.
func (s Scenario) TakesPart(servers []string) bool {
	return slices.ContainsFunc(s.Rows, func(row Row) bool {
		return slices.ContainsFunc(servers, func(name string) bool { return slices.Contains(row.Servers, name) })
	})
}

// Run measures a scenario. Measurements that fail are samples with an error;
// the run goes on. It returns early, with the context's error, when ctx ends.
func Run(ctx context.Context, s Scenario, settings Settings) (result.Section, error) {
	rounds := s.Rounds
	if settings.Rounds > 0 {
		rounds = settings.Rounds
	} else if settings.Quick {
		rounds = 1
	}
	section := result.Section{
		Scenario: s.Name, Time: time.Now().UTC().Truncate(time.Second), Machine: measure.ThisMachine(), Load: s.loadName(settings),
		Versions: map[string]string{}, Skipped: map[string]string{},
		Quick: settings.Quick, Rounds: rounds, Duration: settings.Duration,
	}
	for round := 1; round <= rounds; round++ {
		for _, row := range s.Rows {
			for _, name := range settings.Servers {
				if !slices.Contains(row.Servers, name) {
					continue
				}
				one, _ := server.Find(name) // the row has it
				if !noteVersion(&section, one) {
					continue
				}
				if err := ctx.Err(); err != nil {
					return section, err
				}
				sample := result.Sample{Row: row.Name, Server: name, Round: round}
				turn := &turn{Settings: settings, server: one, workers: row.Workers}
				values, err := row.measure(turn)
				outcome := s.outcome(values)
				if err != nil {
					sample.Error, outcome = err.Error(), "FAILED: "+err.Error()
				} else {
					sample.Values, sample.Latencies = values, turn.latencies
				}
				section.Samples = append(section.Samples, sample)
				settings.Progress(s.Name, row.Name, name, round, rounds, outcome)
			}
		}
	}
	return section, nil
}

// noteVersion reports whether the server is installed.
func noteVersion(section *result.Section, s server.Server) bool {
	if section.Versions[s.Name] == "" && section.Skipped[s.Name] == "" {
		if version := s.Version(); version != "" {
			section.Versions[s.Name] = version
		} else {
			section.Skipped[s.Name] = "not installed"
		}
	}
	return section.Skipped[s.Name] == ""
}

// outcome is the scenario's first figure, for the progress.
func (s Scenario) outcome(values Values) string {
	c := s.Columns[0]
	return fmt.Sprintf("%.*f %s", c.Digits, values[c.Key], c.Unit)
}

// What makes a load, other than wrk.
const (
	closedLoops = "closed loops of this program, with fasthttp's reader of answers"
	steadyLoad  = "one loop of this program over epoll"
	crowds      = "crowds of this program"
)

func (s Scenario) loadName(settings Settings) string {
	switch {
	case s.Load != "":
		return s.Load
	case settings.Wrk && !settings.Quick:
		return "wrk " + load.WrkVersion()
	}
	return closedLoops
}

// Find returns the scenario of a name.
func Find(name string, quick bool) (Scenario, bool) {
	for _, s := range All(quick) {
		if s.Name == name {
			return s, true
		}
	}
	return Scenario{}, false
}

// Names returns the names of all scenarios.
func Names() []string {
	var names []string
	for _, s := range All(false) {
		names = append(names, s.Name)
	}
	return names
}

// clustered is the server of several processes. It takes no part where its
// figures would be those of its workers.
const clustered = "catamount-cluster"

// able returns the servers that have an app, but for some.
func able(app string, not ...string) []string {
	var names []string
	for _, s := range server.All() {
		if s.Answers(app) && !slices.Contains(not, s.Name) {
			names = append(names, s.Name)
		}
	}
	return names
}
