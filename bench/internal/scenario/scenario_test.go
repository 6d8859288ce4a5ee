package scenario

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/catamount-server/catamount/bench/internal/load"
	"github.com/catamount-server/catamount/bench/internal/measure"
	"github.com/catamount-server/catamount/bench/internal/server"
)

// TestTable: what reports and readers rely on.
func TestTable(t *testing.T) {
	for _, quick := range []bool{false, true} {
		names := map[string]bool{}
		for _, s := range All(quick) {
			if names[s.Name] || !strings.HasSuffix(s.Question, "?") || s.Method == "" || s.Rounds < 1 {
				t.Errorf("%s: named twice, or without a question, a method or rounds", s.Name)
			}
			names[s.Name] = true
			rows, keys := map[string]bool{}, map[string]bool{}
			for _, row := range s.Rows {
				if rows[row.Name] || len(row.Servers) == 0 || row.measure == nil {
					t.Errorf("%s, %s: named twice, or measures nothing", s.Name, row.Name)
				}
				rows[row.Name] = true
				for _, name := range row.Servers {
					if _, ok := server.Find(name); !ok {
						t.Errorf("%s, %s: there is no server %s", s.Name, row.Name, name)
					}
				}
			}
			for _, c := range s.Columns {
				if keys[c.Key] {
					t.Errorf("%s: %s appears twice", s.Name, c.Key)
				}
				keys[c.Key] = true
			}
		}
		if len(names) != len(Names()) {
			t.Errorf("quick %v: %d scenarios of %d", quick, len(names), len(Names()))
		}
	}
}

// TestRun: servers take turns round by round, and what fails does not count.
func TestRun(t *testing.T) {
	var order []string
	s := Scenario{Name: "test", Rounds: 2, Columns: []Column{{Key: "x", Digits: 1}}, Rows: []Row{
		{Name: "one", Servers: []string{"nethttp", "epoll"}, measure: func(turn *turn) (Values, error) {
			order = append(order, turn.server.Name)
			if turn.server.Name == "epoll" && len(order) < 3 {
				return Values{"x": 1}, errors.New("broken")
			}
			return Values{"x": 2}, nil
		}},
	}}
	var progress []string
	settings := Settings{Servers: []string{"catamount", "nethttp", "epoll"}, Duration: time.Second,
		Progress: func(_, row, server string, round, rounds int, outcome string) {
			progress = append(progress, fmt.Sprintf("%s %s %d/%d %s", row, server, round, rounds, outcome))
		}}
	section, err := Run(t.Context(), s, settings)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"nethttp", "epoll", "nethttp", "epoll"}; !slices.Equal(order, want) {
		t.Errorf("turns %v, want %v", order, want)
	}
	if want := []string{"one nethttp 1/2 2.0 ", "one epoll 1/2 FAILED: broken", "one nethttp 2/2 2.0 ", "one epoll 2/2 2.0 "}; !slices.Equal(progress, want) {
		t.Errorf("progress %q, want %q", progress, want)
	}
	if failed := section.Failed(); len(failed) != 1 || failed[0].Values != nil {
		t.Errorf("failed: %+v", failed)
	}
	if got := section.Series("one", "epoll", "x").Valid(); !slices.Equal(got, []float64{2}) {
		t.Errorf("of epoll counts %v", got)
	}
	settings.Rounds = 1
	if section, _ := Run(t.Context(), s, settings); section.Rounds != 1 || len(section.Samples) != 2 {
		t.Errorf("-rounds 1: %d rounds, %d samples", section.Rounds, len(section.Samples))
	}
}

// TestTakesPart: a run that measures nothing must not replace earlier results.
func TestTakesPart(t *testing.T) {
	s, _ := Find("json", false)
	if !s.TakesPart([]string{"nginx", "catamount"}) || s.TakesPart([]string{"nginx", "gnet"}) || s.TakesPart(nil) {
		t.Error("json is for catamount, and not for nginx and gnet, which cannot")
	}
}

// TestRunInterrupted: what was begun is finished, nothing else is begun.
func TestRunInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := Scenario{Name: "test", Rounds: 2, Columns: []Column{{Key: "x"}}, Rows: []Row{
		{Name: "one", Servers: []string{"nethttp", "epoll"}, measure: func(*turn) (Values, error) {
			cancel()
			return Values{}, nil
		}},
	}}
	section, err := Run(ctx, s, Settings{Servers: []string{"nethttp", "epoll"}, Progress: func(_, _, _ string, _, _ int, _ string) {}})
	if !errors.Is(err, context.Canceled) || len(section.Samples) != 1 {
		t.Errorf("%d samples, error %v", len(section.Samples), err)
	}
}

func TestCosts(t *testing.T) {
	const ms = time.Millisecond
	before := moment{at: time.Unix(9, 0), server: measure.Usage{Total: 10 * ms, User: 5 * ms, System: 5 * ms}, busy: time.Hour}
	after := moment{at: time.Unix(9, 1e8), server: measure.Usage{Total: 40 * ms, User: 15 * ms, System: 25 * ms}, busy: time.Hour + 50*ms}
	got := costs(before, after, load.Result{Requests: 10000, Late: 1000, Seconds: 0.1}, measure.Memory{PSS: 3 << 20})
	for key, want := range map[string]float64{"cpu": 3, "user": 1, "system": 2, "rate": 90000, "busy": 30, "memory": 3, Others: 20} {
		if got[key] != want {
			t.Errorf("%s is %v, want %v", key, got[key], want)
		}
	}
}

func TestAbove(t *testing.T) {
	before := serverState{server.Inside{Heap: 100, Goroutines: 5}, measure.Memory{PSS: 1000}}
	after := serverState{server.Inside{Heap: 300, Goroutines: 25}, measure.Memory{PSS: 4000}}
	if got := after.above(before, 10); got["pss"] != 300 || got["heap"] != 20 || got["goroutines"] != 2 {
		t.Errorf("%v", got)
	}
}
