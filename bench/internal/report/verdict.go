package report

import (
	"fmt"

	"github.com/catamount-server/catamount/bench/internal/result"
	"github.com/catamount-server/catamount/bench/internal/server"
	"github.com/catamount-server/catamount/bench/internal/stats"
)

// target is what a figure of Catamount should reach.
type target struct {
	scenario, row string
	key           string
	what          string  // of the figure
	limit         float64 // not above it
	against       func(*result.Section, target) (stats.Figure, string)
	digits        int
}

// verdict is a target beside what was measured.
type verdict struct {
	Claim  string // what was measured, in a sentence's part
	Value  string
	Wanted string
	Met    bool
	// Divided: some rounds met it and others did not, so that another run may
	// come out differently.
	Divided bool
}

// targets are those that the report must show.
func targets() []target {
	var list []target
	for _, row := range []struct{ scenario, row string }{{"hello", "hello"}, {"headers", "8 fields"}, {"headers", "30 fields"}} {
		for _, peer := range []struct {
			name  string
			limit float64
		}{{"fasthttp", 0.9}, {"nethttp", 0.5}, {"epoll", 1.35}} {
			list = append(list, cpu(row.scenario, row.row, peer.limit, ratioTo(peer.name)))
		}
	}
	list = append(list, cpu("pipeline16", "pipeline16", 1.3, ratioTo("fasthttp")))
	for _, row := range []struct{ scenario, row string }{
		{"churn", "churn"}, {"upload", "1 KiB"}, {"upload", "100 KiB"}, {"upload", "10 MiB"},
		{"download", "64 KiB from memory"}, {"download", "10 MiB from a file"},
	} {
		list = append(list, cpu(row.scenario, row.row, 1, ratioTo("nethttp")), cpu(row.scenario, row.row, 1.15, ratioToBest))
	}
	for _, row := range []string{"1000 idle", "5000 idle", "15000 idle"} {
		list = append(list, target{scenario: "idle", row: row, key: "pss", what: "PSS per connection, bytes", limit: 250})
	}
	return append(list,
		cpu("scale", "15000 connections", 1.3, ratioToRow("64 connections")),
		target{scenario: "latency", row: "50 % of the peak", key: "p99", what: "p99", limit: 1, against: ratioToBest, digits: 2})
}

func cpu(scenario, row string, limit float64, against func(*result.Section, target) (stats.Figure, string)) target {
	return target{scenario: scenario, row: row, key: "cpu", what: "CPU per request", limit: limit, against: against, digits: 2}
}

func ratioTo(peer string) func(*result.Section, target) (stats.Figure, string) {
	return func(s *result.Section, t target) (stats.Figure, string) {
		return s.Figure(t.row, peer, t.key), "as a part of that of " + peer
	}
}

// ratioToBest compares with the peer whose figure is the lowest. Limits, which
// answer canned bytes, are no peers.
func ratioToBest(s *result.Section, t target) (stats.Figure, string) {
	var best stats.Figure
	name := ""
	for _, candidate := range s.Servers(t.row) {
		if one, ok := server.Find(candidate); !ok || one.Kind != server.Peer {
			continue
		}
		figure := s.Figure(t.row, candidate, t.key)
		if len(figure.Rounds.Valid()) > 0 && (name == "" || figure.Value < best.Value) {
			best, name = figure, candidate
		}
	}
	return best, "as a part of that of the best peer, " + name
}

func ratioToRow(row string) func(*result.Section, target) (stats.Figure, string) {
	return func(s *result.Section, t target) (stats.Figure, string) {
		return s.Figure(row, reference, t.key), "as a multiple of that at " + row
	}
}

// verdictsOf judges what results have figures for.
func verdictsOf(results *result.Results) []verdict {
	var verdicts []verdict
	for _, t := range targets() {
		section := results.Find(t.scenario)
		if section == nil {
			continue
		}
		figure := section.Figure(t.row, reference, t.key)
		claim, wanted := fmt.Sprintf("%s, %s: %s", t.scenario, t.row, t.what), stats.Number(t.limit, t.digits)
		if t.scenario == t.row {
			claim = fmt.Sprintf("%s: %s", t.scenario, t.what)
		}
		if t.against != nil {
			other, name := t.against(section, t)
			figure = figure.Over(other)
			claim += " " + name
		}
		if len(figure.Rounds.Valid()) == 0 {
			continue
		}
		low, high := figure.Rounds.Range()
		verdicts = append(verdicts, verdict{claim, figure.Format(t.digits), "≤ " + wanted, figure.Value <= t.limit, low <= t.limit && high > t.limit})
	}
	return verdicts
}

// verdictTable shows verdicts.
func verdictTable(verdicts []verdict) table {
	t := table{Caption: "Targets", Header: []string{"catamount", "measured", "wanted", ""}}
	for _, v := range verdicts {
		outcome := "falls short"
		if v.Met {
			outcome = "reached"
		}
		if v.Divided {
			outcome += ", not in every round"
		}
		t.Rows = append(t.Rows, []string{v.Claim, v.Value, v.Wanted, outcome})
	}
	return t
}
