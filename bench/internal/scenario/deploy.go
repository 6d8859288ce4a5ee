package scenario

import (
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/catamount-server/catamount/bench/internal/load"
	"github.com/catamount-server/catamount/bench/internal/measure"
	"github.com/catamount-server/catamount/bench/internal/server"
	"github.com/catamount-server/catamount/bench/internal/stats"
)

// deploy counts what clients notice when a server is replaced.
func deploy(quick bool) Scenario {
	length := 8 * time.Second
	if quick {
		length = 3 * time.Second
	}
	row := func(name string, signals map[string]syscall.Signal) Row {
		r := Row{Name: name, measure: measureDeploy(length, signals)}
		for _, s := range server.All() {
			if _, ok := signals[s.Name]; ok {
				r.Servers = append(r.Servers, s.Name)
			}
		}
		return r
	}
	return Scenario{
		Name: "deploy", Load: closedLoops, Rounds: 2,
		Question: "How many requests fail, and how long does the slowest take, while the server is replaced under load?",
		Method: "32 keep-alive connections and 8 that are opened for each request, from before the signal until after the last old process is gone. " +
			"Phased: USR1 has a cluster of two replace one worker after the other; nginx replaces its worker at HUP. Hot: USR2 executes the program anew in the master's place; Puma 5 restarts its one process.",
		Columns: []Column{
			{Key: "failed", Title: "failed requests", Digits: 0},
			{Key: "max", Title: "slowest answer", Unit: "ms", Digits: 0},
			{Key: "p9999", Title: "p99.99", Unit: "ms", Digits: 1},
			{Key: "p99", Title: "p99", Unit: "ms", Digits: 1},
			{Key: "requests", Title: "requests", Digits: 0, MoreIsBetter: true},
			{Key: "took", Title: "until no old process was left", Unit: "s", Digits: 1},
		},
		Rows: []Row{
			row("phased restart", map[string]syscall.Signal{clustered: syscall.SIGUSR1, "nginx": syscall.SIGHUP}),
			row("hot restart", map[string]syscall.Signal{clustered: syscall.SIGUSR2, "puma": syscall.SIGUSR2}),
		},
	}
}

func measureDeploy(length time.Duration, signals map[string]syscall.Signal) func(*turn) (Values, error) {
	return func(t *turn) (Values, error) {
		r, err := t.startChecked(server.Hello, 0)
		if err != nil {
			return nil, err
		}
		defer r.Stop()
		type outcome struct {
			results []load.Result
			err     error
		}
		done := make(chan outcome, 1)
		go func() {
			results, err := load.RunLoops(load.Loops{Addr: r.Addr, Duration: length,
				Groups: []load.Group{{Conns: 32}, {Request: load.Request{Close: true}, Conns: 8}}})
			done <- outcome{results, err}
		}()
		time.Sleep(length / 8) // the load has to run before the signal
		took, err := replaced(r.PID, signals[t.server.Name], length*3/4)
		o := <-done
		if err == nil {
			err = o.err
		}
		if err != nil {
			return nil, err
		}
		kept, fresh := o.results[0], o.results[1]
		latencies := stats.Pool([]*stats.Latencies{kept.Latencies, fresh.Latencies})
		values := Values{
			"failed": float64(kept.Failed() + fresh.Failed()), "requests": float64(kept.Requests + fresh.Requests),
			"max":   latencies.Percentile(100) / 1e3,
			"p9999": latencies.Percentile(99.99) / 1e3,
			"p99":   latencies.Percentile(99) / 1e3,
		}
		if took > 0 {
			values["took"] = took.Seconds()
		}
		return values, nil
	}
}

// replaced sends the signal and waits until none of the processes below pid is
// left. Of one that replaces itself, without others, nothing is to be seen from
// outside: then took is 0.
func replaced(pid int, signal syscall.Signal, limit time.Duration) (took time.Duration, err error) {
	old, err := workersOf(pid)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if err := syscall.Kill(pid, signal); err != nil {
		return 0, fmt.Errorf("%v to process %d: %w", signal, pid, err)
	}
	if len(old) == 0 {
		return 0, nil
	}
	for {
		now, err := workersOf(pid)
		if err != nil {
			return 0, err
		}
		if !slices.ContainsFunc(old, func(worker int) bool { return slices.Contains(now, worker) }) && len(now) >= len(old) {
			return time.Since(start), nil
		}
		if time.Since(start) > limit {
			return 0, fmt.Errorf("%v after %v the workers are %v, before %v", limit, signal, now, old)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// workersOf returns the processes below pid.
func workersOf(pid int) ([]int, error) {
	tree, err := measure.Tree(pid)
	if err != nil {
		return nil, err
	}
	return tree[1:], nil
}
