package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// slowFigures are the figures of one server, one value a round.
type slowFigures struct {
	alone, beside series // requests per second of the ordinary clients
	slow          series // slow clients that were connected
	closed        series // slow connections that the server closed meanwhile
	load          series // percent of the load's processor that the slow clients took from wrk
	failed        series // ordinary requests that timed out or broke
	cost          series // microseconds of the server's CPU per ordinary request, alone
	costBeside    series // and beside the slow clients, whose handling is in it
}

// measureSlow answers: what is left for ordinary clients while others send
// their requests a byte a second?
func measureSlow(s settings, out io.Writer) error {
	fmt.Fprintf(out, "shielding: %d ordinary keep-alive connections, alone and beside %d clients that send a header byte a second;\n"+
		"pool of %d; %d rounds of %v\n\n", s.conns, s.slow, s.threads, s.rounds, s.duration)
	figures := map[string]*slowFigures{}
	for round := range s.rounds {
		for _, name := range s.servers {
			f := figures[name]
			if f == nil {
				f = &slowFigures{}
				figures[name] = f
			}
			if err := f.measure(name, s); err != nil {
				return fmt.Errorf("%s, round %d: %w", name, round+1, err)
			}
		}
	}

	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "server\talone requests/s\tbeside\tbeside/alone\tslow connected\tclosed on them\ttheir CPU %\tfailed")
	for _, name := range s.servers {
		f := figures[name]
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%.0f\t%.0f\t%.1f\t%.0f\n", name, f.alone.format(0), f.beside.format(0),
			f.beside.over(f.alone).format(3), f.slow.median(), f.closed.median(), f.load.median(), f.failed.median())
	}
	table.Flush()

	fmt.Fprintln(out, "\nThe slow clients share a processor with wrk, which loses what they take. What they take from the server is in\n"+
		"its CPU per ordinary request, everything that it does for the slow ones included:")
	table = tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "server\talone CPU µs/request\tbeside\talone/beside: the share of the server left to the ordinary clients")
	for _, name := range s.servers {
		f := figures[name]
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", name, f.cost.format(2), f.costBeside.format(2), f.cost.over(f.costBeside).format(3))
	}
	return table.Flush()
}

// runMeasured runs wrk, and returns the server's CPU per request with it, in
// microseconds; 0 without requests.
func runMeasured(srv *server, l load) (r result, cost float64, err error) {
	before, err := srv.usage(false)
	if err != nil {
		return r, 0, err
	}
	if r, err = runWrk(l); err != nil || r.requests == 0 {
		return r, 0, err
	}
	after, err := srv.usage(false)
	spent := after.User - before.User + after.System - before.System
	return r, float64(spent.Nanoseconds()) / 1e3 / float64(r.requests), err
}

func (f *slowFigures) measure(name string, s settings) error {
	srv, err := startServer(name, s.threads)
	if err != nil {
		return err
	}
	defer srv.stop()

	l := load{addr: srv.addr, conns: s.conns, duration: s.warmup}
	if _, err := runWrk(l); err != nil {
		return err
	}
	l.duration = s.duration
	alone, cost, err := runMeasured(srv, l)
	if err != nil {
		return err
	}
	if err := alone.clean(); err != nil {
		return err
	}

	slow, opened, err := startClients("slow", srv.addr, s.slow)
	if err != nil {
		return err
	}
	defer slow.stop()
	before, err := slow.clientState()
	if err != nil {
		return err
	}
	start := time.Now()
	beside, costBeside, err := runMeasured(srv, l) // requests may fail: that is the figure
	if errors.Is(err, errUnreachable) {
		beside, err = result{seconds: l.duration.Seconds(), broken: int64(s.conns)}, nil
	}
	if err != nil {
		return err
	}
	after, err := slow.clientState()
	if err != nil {
		return err
	}
	took := time.Since(start)
	f.cost = append(f.cost, cost)
	f.costBeside = append(f.costBeside, costBeside)
	f.alone = append(f.alone, alone.rate())
	f.beside = append(f.beside, beside.rate())
	f.slow = append(f.slow, float64(opened))
	f.closed = append(f.closed, float64(after.closed))
	f.load = append(f.load, 100*float64(after.cpu-before.cpu)/float64(took))
	f.failed = append(f.failed, float64(beside.bad+beside.broken+beside.timeouts))
	return nil
}
