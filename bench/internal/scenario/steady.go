package scenario

import (
	"fmt"

	"github.com/catamount-server/catamount/bench/internal/load"
	"github.com/catamount-server/catamount/bench/internal/result"
	"github.com/catamount-server/catamount/bench/internal/server"
)

// fixedRate is the rate of the row in which all servers have the same.
const fixedRate = 10_000

func latency(quick bool) Scenario {
	s := Scenario{
		Name: "latency", Load: steadyLoad, Rounds: 3, Plot: Percentiles,
		Question: "How long do answers take at a part of what the server could do, and how long do the slowest take?",
		Method: "64 keep-alive connections at a constant rate; a latency counts from when the request was due, so that a server that stalls is charged for all that it kept waiting. " +
			"Percentiles are those of all rounds' latencies together, with the rounds' own in brackets. " +
			"The rate is a part of the server's own peak, taken just before with the same connections, or the same for all. Puma takes no part: it closes kept-alive connections now and then, which counts as a failure here.",
		Columns: []Column{
			{Key: "p99", Title: "p99", Unit: "µs", Digits: 0},
			{Key: "p50", Title: "p50", Unit: "µs", Digits: 0},
			{Key: "p90", Title: "p90", Unit: "µs", Digits: 0},
			{Key: "p999", Title: "p99.9", Unit: "µs", Digits: 0},
			{Key: "p9999", Title: "p99.99", Unit: "µs", Digits: 0},
			{Key: "max", Title: "max", Unit: "µs", Digits: 0},
			{Key: "rate", Title: "requests/s", Digits: 0, MoreIsBetter: true},
			{Key: "cpu", Title: "CPU per request", Unit: "µs", Digits: 2},
		},
	}
	rate, percents := float64(fixedRate), []float64{20, 50, 80}
	if quick {
		rate, percents = 1000, []float64{50}
	}
	s.Rows = []Row{{Name: fmt.Sprintf("%.0f a second", rate), Servers: able(server.Hello, "puma", "gnet"),
		measure: measureLatency(func(float64) float64 { return rate })}}
	for _, percent := range percents {
		s.Rows = append(s.Rows, Row{Name: fmt.Sprintf("%.0f %% of the peak", percent), Servers: able(server.Hello, "puma", "gnet"),
			measure: measureLatency(func(peak float64) float64 { return peak * percent / 100 })})
	}
	return s
}

func measureLatency(rate func(peak float64) float64) func(*turn) (Values, error) {
	return func(t *turn) (Values, error) {
		r, steady, err := t.startSteady(connections)
		if err != nil {
			return nil, err
		}
		defer r.Stop()
		steady.Duration = 2 * t.warmupTime()
		_, peak, err := runSteady(r, steady, 1)
		if err != nil {
			return nil, fmt.Errorf("peak: %w", err)
		}
		steady.Duration, steady.Rate = t.Duration, rate(peak.Rate())
		values, measured, err := runSteady(r, steady, 1)
		if err != nil {
			return nil, err
		}
		t.latencies = measured.Latencies
		figures := Values{"rate": steady.Rate, "cpu": values["cpu"], Others: values[Others]}
		for key, percent := range result.Percentiles {
			figures[key] = measured.Latencies.Percentile(percent)
		}
		return figures, nil
	}
}

func scale(quick bool) Scenario {
	numbers := []int{64, 1000, 5000, 15000}
	if quick {
		numbers = []int{16, 200}
	}
	s := Scenario{
		Name: "scale", Load: steadyLoad, Rounds: 2, Plot: Lines, Columns: costColumns,
		Question: "Does a request cost more when there are many connections, or several workers?",
		Method: "The requests of hello, one under way on each of so many connections, from up to four source addresses. " +
			"The workers of a cluster share the servers' processor, and have 64 connections: this is what a request costs with so many, not how much more several processors serve.",
		Rows: counted(numbers, "%d connections", able(server.Hello, clustered, "catamount-blocking", "puma"), measureScale),
	}
	for _, n := range []int{1, 2, 4} {
		name := fmt.Sprintf("%d workers", n)
		if n == 1 {
			name = "1 worker"
		}
		s = s.with(Row{Name: name, Servers: []string{clustered}, Workers: n, measure: measureScale(connections)})
	}
	return s
}

func measureScale(n int) func(*turn) (Values, error) {
	return func(t *turn) (Values, error) {
		r, steady, err := t.startSteady(n)
		if err != nil {
			return nil, err
		}
		defer r.Stop()
		values, _, err := runSteady(r, steady, 2) // once over all connections, to be warm
		return values, err
	}
}

// startSteady starts the turn's server, and returns a load of requests of hello
// for it, as fast as the answers come.
func (t *turn) startSteady(conns int) (*server.Running, load.Steady, error) {
	r, err := t.start(server.Hello, 0)
	if err != nil {
		return nil, load.Steady{}, err
	}
	size, err := check(r, server.Hello, load.Request{})
	if err != nil {
		r.Stop()
		return nil, load.Steady{}, err
	}
	return r, load.Steady{Addr: r.Addr, AnswerSize: size, Conns: conns, Duration: t.Duration}, nil
}

// runSteady opens connections, runs a load over them so many times, and returns
// what the last of them cost. All must be clean.
func runSteady(r *server.Running, s load.Steady, times int) (Values, load.Result, error) {
	l, err := load.StartSteady(s)
	if err != nil {
		return nil, load.Result{}, err
	}
	defer l.Stop()
	for range times - 1 {
		warmup, err := l.Run()
		if err == nil {
			err = warmup.Clean()
		}
		if err != nil {
			return nil, warmup, fmt.Errorf("warm-up: %w", err)
		}
	}
	values, result, err := charged(r, l.Run)
	if err == nil {
		err = result.Clean()
	}
	return values, result, err
}
