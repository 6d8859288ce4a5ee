package scenario

import (
	"time"

	"github.com/catamount-server/catamount/bench/internal/load"
	"github.com/catamount-server/catamount/bench/internal/process"
	"github.com/catamount-server/catamount/bench/internal/server"
)

const (
	smallPool   = 16 // places, in the scenarios of slow clients and handlers
	ordinary    = 8  // connections beside the slow clients: half of the pool
	besideLimit = time.Second
)

// besideColumns are the figures of ordinary clients beside others.
var besideColumns = []Column{
	{Key: "rate", Title: "ordinary requests/s", Digits: 0, MoreIsBetter: true},
	{Key: "p50", Title: "p50", Unit: "ms", Digits: 2},
	{Key: "p99", Title: "p99", Unit: "ms", Digits: 2},
	{Key: "failed", Title: "no answer within 1 s", Digits: 0},
	{Key: "cpu", Title: "the server's CPU per ordinary request, its work for the slow clients included", Unit: "µs", Digits: 2},
	{Key: "slow", Title: "slow clients connected", Digits: 0},
	{Key: "closed", Title: "closed on them", Digits: 0},
	{Key: "memory", Title: "PSS", Unit: "MiB", Digits: 1},
	{Key: "crowd", Title: "processor of the slow clients", Unit: "%", Digits: 0},
}

func slowClients(quick bool) Scenario {
	numbers := []int{0, 8, 16, 100, 1000, 5000}
	if quick {
		numbers = []int{0, 32}
	}
	return Scenario{
		Name: "slowclients", Load: closedLoops + ", " + crowds, Rounds: 2, Plot: Lines, Columns: besideColumns,
		Question: "What is left for ordinary clients while others send their requests a byte a second?",
		Method: "8 ordinary keep-alive connections beside slow clients, half of which trickle heads and half bodies; pools of 16 places. " +
			"The slow clients take their part of the processor that the ordinary ones run on.",
		Rows: counted(numbers, "%d slow", able(server.Upload, clustered, "nbio", "hertz"), func(n int) func(*turn) (Values, error) {
			return beside(server.Upload, 1, load.Crowd{Kind: load.Heads, N: n - n/2}, load.Crowd{Kind: load.Bodies, N: n / 2})
		}),
	}
}

func slowReaders(quick bool) Scenario {
	numbers := []int{0, 8, 16, 100}
	if quick {
		numbers = []int{0, 20}
	}
	return Scenario{
		Name: "slowreaders", Load: closedLoops + ", " + crowds, Rounds: 2, Plot: Lines, Columns: besideColumns,
		Question: "What is left for ordinary clients while others read large answers slowly?",
		Method: "8 ordinary keep-alive connections beside clients that ask for 8 MiB, more than the kernel takes, and read 1 KiB of it a second; pools of 16 places. " +
			"PSS does not have what the kernel holds for sockets, nor what lies in files.",
		Rows: counted(numbers, "%d readers", able(server.Big, clustered, "hertz"), func(n int) func(*turn) (Values, error) {
			return beside(server.Big, 1+n/50, load.Crowd{Kind: load.Readers, Path: server.BigPath, N: n})
		}),
	}
}

// beside measures ordinary clients beside crowds, which have come some durations
// before: what is done for them once is over then. Requests that fail are a
// figure here.
func beside(app string, settle int, crowds ...load.Crowd) func(*turn) (Values, error) {
	return func(t *turn) (Values, error) {
		r, err := t.startChecked(app, smallPool)
		if err != nil {
			return nil, err
		}
		defer r.Stop()
		run := func(d time.Duration) (load.Result, error) {
			results, err := load.RunLoops(load.Loops{Addr: r.Addr, Groups: []load.Group{{Conns: ordinary}}, Duration: d, Patience: besideLimit})
			if err != nil {
				return load.Result{}, err
			}
			return results[0], nil
		}
		if _, err := run(t.warmupTime()); err != nil {
			return nil, err
		}
		children, stop, err := startCrowds(r.Addr, crowds)
		defer stop()
		if err != nil {
			return nil, err
		}
		if _, err := run(time.Duration(settle) * t.Duration); err != nil {
			return nil, err
		}
		before, err := total(children)
		if err != nil {
			return nil, err
		}
		start := time.Now()
		values, result, err := charged(r, func() (load.Result, error) { return run(t.Duration) })
		if err != nil {
			return nil, err
		}
		took := time.Since(start)
		after, err := total(children)
		if err != nil {
			return nil, err
		}
		if result.Latencies.Count() > 0 {
			values["p50"], values["p99"] = result.Latencies.Percentile(50)/1e3, result.Latencies.Percentile(99)/1e3
		}
		values["failed"] = float64(result.Failed())
		values["slow"], values["closed"] = float64(after.Alive), float64(after.Closed)
		values["crowd"] = 100 * float64(after.CPU-before.CPU) / float64(took)
		if result.Requests == 0 {
			delete(values, "cpu") // there is none that it could be the price of
		}
		return values, nil
	}
}

// startCrowds starts those crowds that have clients; stop ends them, also when
// not all could be started.
func startCrowds(addr string, crowds []load.Crowd) (children []*process.Child, stop func(), err error) {
	stop = func() {
		for _, child := range children {
			child.Stop()
		}
	}
	for _, crowd := range crowds {
		if crowd.N == 0 {
			continue
		}
		crowd.Addr = addr
		child, _, err := load.StartCrowd(crowd)
		if err != nil {
			return children, stop, err
		}
		children = append(children, child)
	}
	return children, stop, nil
}

// total adds up the states of crowds.
func total(crowds []*process.Child) (sum load.CrowdState, err error) {
	for _, crowd := range crowds {
		state, err := load.StateOf(crowd)
		if err != nil {
			return sum, err
		}
		sum.Alive += state.Alive
		sum.Closed += state.Closed
		sum.CPU += state.CPU
	}
	return sum, nil
}

func slowHandlers(quick bool) Scenario {
	numbers := []int{64, 256}
	if quick {
		numbers = []int{32}
	}
	return Scenario{
		Name: "slowhandlers", Load: closedLoops, Rounds: 2,
		Question: "When all places of the pool are busy, how long do requests wait, and do new connections get their share beside kept-alive ones?",
		Method: "Handlers sleep 50 ms; pools of 16 places, so at most 320 requests a second. Of the connections three quarters are kept alive and " +
			"a quarter is opened for each request anew. With a perfect queue and N connections each request takes N/320 s. Servers without a pool show what 50 ms cost without one.",
		Columns: []Column{
			{Key: "newp99", Title: "new connections p99", Unit: "ms", Digits: 0},
			{Key: "newp50", Title: "p50", Unit: "ms", Digits: 0},
			{Key: "keptp99", Title: "kept-alive p99", Unit: "ms", Digits: 0},
			{Key: "keptp50", Title: "p50", Unit: "ms", Digits: 0},
			{Key: "rate", Title: "requests/s", Digits: 0, MoreIsBetter: true},
			{Key: "share", Title: "new connections' share of the requests", Unit: "%", Digits: 0, MoreIsBetter: true},
			{Key: "failed", Title: "no answer within 5 s", Digits: 0},
		},
		Rows: counted(numbers, "%d connections", able(server.Sleep, clustered, "nbio", "hertz"), measureSlowHandlers),
	}
}

func measureSlowHandlers(n int) func(*turn) (Values, error) {
	return func(t *turn) (Values, error) {
		r, err := t.startChecked(server.Sleep, smallPool)
		if err != nil {
			return nil, err
		}
		defer r.Stop()
		fresh := n / 4
		duration := max(t.Duration, time.Duration(n)*time.Second/80) // some four answers each
		results, err := load.RunLoops(load.Loops{Addr: r.Addr, Duration: duration, Patience: 5 * time.Second,
			Groups: []load.Group{{Conns: n - fresh}, {Request: load.Request{Close: true}, Conns: fresh}}})
		if err != nil {
			return nil, err
		}
		kept, new := results[0], results[1]
		all := kept.Requests + new.Requests
		return Values{
			"newp99": new.Latencies.Percentile(99) / 1e3, "newp50": new.Latencies.Percentile(50) / 1e3,
			"keptp99": kept.Latencies.Percentile(99) / 1e3, "keptp50": kept.Latencies.Percentile(50) / 1e3,
			"rate": kept.Rate() + new.Rate(), "share": 100 * float64(new.Requests) / float64(max(all, 1)),
			"failed": float64(kept.Failed() + new.Failed()),
		}, nil
	}
}
