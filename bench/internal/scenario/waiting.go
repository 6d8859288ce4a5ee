package scenario

import (
	"fmt"
	"time"

	"github.com/catamount-server/catamount/bench/internal/load"
	"github.com/catamount-server/catamount/bench/internal/measure"
	"github.com/catamount-server/catamount/bench/internal/process"
	"github.com/catamount-server/catamount/bench/internal/server"
)

// warmupClients is how many connections the empty server has had: enough that
// every page of its program that serves a request is in memory already, and
// is not charged to the connections.
const warmupClients = 64

// idle answers with memory above that of the empty server.
func idle(quick bool) Scenario {
	numbers, busy := []int{1000, 5000, 15000}, 1000
	if quick {
		numbers, busy = []int{100}, 50
	}
	s := Scenario{
		Name: "idle", Load: crowds, Rounds: 2, Plot: Lines,
		Question: "How many bytes does a connection cost that waits for its next request, and one whose handler is running?",
		Method: "Connections that were each served one request and stay; at the end each is served one more, as the proof that it was still there. " +
			"Memory above the same server with no connection, which has served 64 before; Go servers have collected their garbage twice. " +
			"Busy connections are those whose handler waits; pools have room for all. What the kernel needs for a socket is not in the figures.",
		Columns: []Column{
			{Key: "pss", Title: "PSS per connection", Unit: "B", Digits: 0},
			{Key: "rss", Title: "RSS", Unit: "B", Digits: 0},
			{Key: "anonymous", Title: "anonymous", Unit: "B", Digits: 0},
			{Key: "heap", Title: "Go heap", Unit: "B", Digits: 0},
			{Key: "stack", Title: "Go stacks", Unit: "B", Digits: 0},
			{Key: "goroutines", Title: "goroutines", Digits: 2},
		},
	}
	s.Rows = counted(numbers, "%d idle", able(server.Hello, clustered, "catamount-blocking", "puma"), measureIdle)
	return s.with(Row{Name: fmt.Sprintf("%d busy", busy), Servers: able(server.Park), measure: measureBusy(busy)})
}

func (s Scenario) with(rows ...Row) Scenario {
	s.Rows = append(s.Rows, rows...)
	return s
}

func measureIdle(n int) func(*turn) (Values, error) {
	return func(t *turn) (Values, error) {
		r, err := t.startChecked(server.Hello, 0)
		if err != nil {
			return nil, err
		}
		defer r.Stop()
		before, err := emptied(r)
		if err != nil {
			return nil, err
		}
		crowd, _, err := load.StartCrowd(load.Crowd{Kind: load.Idle, Addr: r.Addr, N: n})
		if err != nil {
			return nil, err
		}
		defer crowd.Stop()
		after, err := stateOf(r)
		if err != nil {
			return nil, err
		}
		state, err := load.StateOf(crowd)
		if err != nil {
			return nil, err
		}
		if state.Alive != n {
			return nil, fmt.Errorf("of %d connections only %d were alive when measured", n, state.Alive)
		}
		return after.above(before, n), nil
	}
}

func measureBusy(n int) func(*turn) (Values, error) {
	return func(t *turn) (Values, error) {
		r, err := t.startChecked(server.Park, n+warmupClients)
		if err != nil {
			return nil, err
		}
		defer r.Stop()
		defer r.Release()
		before, err := emptied(r)
		if err != nil {
			return nil, err
		}
		crowd, _, err := load.StartCrowd(load.Crowd{Kind: load.Waiting, Addr: r.Addr, Path: server.ParkPath, N: n})
		if err != nil {
			return nil, err
		}
		defer crowd.Stop()
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			inside, err := r.Look()
			if err != nil {
				return nil, err
			}
			if inside.Parked == int64(n) {
				break
			}
			if time.Now().After(deadline) {
				return nil, fmt.Errorf("of %d handlers only %d run", n, inside.Parked)
			}
		}
		after, err := stateOf(r)
		if err != nil {
			return nil, err
		}
		return after.above(before, n), nil
	}
}

// serverState is what a server holds after a collection.
type serverState struct {
	inside server.Inside
	memory measure.Memory
}

func stateOf(r *server.Running) (s serverState, err error) {
	s.inside, s.memory, err = r.Collect()
	return s, err
}

// emptied returns the state of a server that has served before. Its clients
// have left, but their process stays for as long as is measured: with one more
// or less that runs this program, PSS would charge its pages differently.
func emptied(r *server.Running) (serverState, error) {
	var gone *process.Child
	gone, _, err := load.StartCrowd(load.Crowd{Kind: load.Gone, Addr: r.Addr, N: warmupClients})
	if err != nil {
		return serverState{}, err
	}
	defer gone.Stop()
	return stateOf(r)
}

// above returns the difference for each of n connections.
func (s serverState) above(before serverState, n int) Values {
	per := func(after, before int64) float64 { return float64(after-before) / float64(n) }
	return Values{
		"pss":        per(s.memory.PSS, before.memory.PSS),
		"rss":        per(s.memory.RSS, before.memory.RSS),
		"anonymous":  per(s.memory.Anonymous, before.memory.Anonymous),
		"heap":       per(int64(s.inside.Heap), int64(before.inside.Heap)),
		"stack":      per(int64(s.inside.Stack), int64(before.inside.Stack)),
		"goroutines": per(int64(s.inside.Goroutines), int64(before.inside.Goroutines)),
	}
}
