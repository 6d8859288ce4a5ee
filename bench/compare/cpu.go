package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// cpuFigures are the figures of one server, one value a round.
type cpuFigures struct {
	user, system, total series // microseconds of CPU per request
	rate                series // requests per second
	busy                series // percent of its processor that the server had
}

// measureCPU answers: what does one request cost the server?
func measureCPU(s settings, out io.Writer) error {
	fmt.Fprintf(out, "CPU per request: GET, %d-byte answer, %d header fields, %d keep-alive connections, pipelined ×%d; %d rounds of %v after %v\n\n",
		len(answer), s.fields, s.conns, s.pipeline, s.rounds, s.duration, s.warmup)
	figures := map[string]*cpuFigures{}
	for round := range s.rounds {
		for _, name := range s.servers {
			f := figures[name]
			if f == nil {
				f = &cpuFigures{}
				figures[name] = f
			}
			if err := f.measure(name, s); err != nil {
				return fmt.Errorf("%s, round %d: %w", name, round+1, err)
			}
		}
	}

	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "server\tCPU µs/request\tuser\tsystem\trequests/s\tbusy %")
	for _, name := range s.servers {
		f := figures[name]
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", name,
			f.total.format(2), f.user.format(2), f.system.format(2), f.rate.format(0), f.busy.format(0))
	}
	table.Flush()
	fmt.Fprintln(out, "\nA server that was not busy waited for the load, or for other programs; it then pays a wake-up for fewer requests.")

	fmt.Fprintln(out, "\nratios of CPU per request, paired by round:")
	for _, peer := range []string{"epoll", "fasthttp", "nethttp"} {
		if !slices.Contains(s.servers, peer) {
			continue
		}
		for _, name := range s.servers {
			if name != peer {
				fmt.Fprintf(out, "  %s / %s = %s\n", name, peer, figures[name].total.over(figures[peer].total).format(2))
			}
		}
	}
	return nil
}

// measure adds one round: a fresh server, a warm-up, a measurement.
func (f *cpuFigures) measure(name string, s settings) error {
	srv, err := startServer(name, s.threads)
	if err != nil {
		return err
	}
	defer srv.stop()

	l := load{addr: srv.addr, conns: s.conns, duration: s.warmup, pipeline: s.pipeline, fields: s.fields}
	if _, err := runWrk(l); err != nil {
		return err
	}
	before, err := srv.usage(false)
	if err != nil {
		return err
	}
	l.duration = s.duration
	r, err := runWrk(l)
	if err != nil {
		return err
	}
	after, err := srv.usage(false)
	if err != nil {
		return err
	}
	if err := r.clean(); err != nil {
		return err
	}

	user := float64((after.User - before.User).Nanoseconds()) / 1e3 / float64(r.requests)
	system := float64((after.System - before.System).Nanoseconds()) / 1e3 / float64(r.requests)
	f.user = append(f.user, user)
	f.system = append(f.system, system)
	f.total = append(f.total, user+system)
	f.rate = append(f.rate, r.rate())
	f.busy = append(f.busy, (user+system)*r.rate()/1e4)
	return nil
}
