package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// warmupClients is how many connections the empty server has had: enough that
// every page of its program that serves a request is in memory already, and
// is not charged to the connections.
const warmupClients = 64

// idleFigures are bytes per connection of one server, one value a round.
type idleFigures struct {
	rss, pss, anonymous, heap, stack series
	goroutines                       series // per connection
}

// measureIdle answers: what does a connection cost that waits for its next
// request?
func measureIdle(s settings, out io.Writer) error {
	fmt.Fprintf(out, "memory per idle connection: %d keep-alive connections, one request served on each; above the empty server,\n"+
		"which has served %d before; after a forced collection; %d rounds\n\n", s.idle, warmupClients, s.rounds)
	figures := map[string]*idleFigures{}
	for round := range s.rounds {
		for _, name := range s.servers {
			f := figures[name]
			if f == nil {
				f = &idleFigures{}
				figures[name] = f
			}
			if err := f.measure(name, s); err != nil {
				return fmt.Errorf("%s, round %d: %w", name, round+1, err)
			}
		}
	}

	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "server\tPss B/connection\tRss\tanonymous\tGo heap\tGo stacks\tgoroutines")
	for _, name := range s.servers {
		f := figures[name]
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%.0f\t%.0f\t%.2f\n", name, f.pss.format(0), f.rss.format(0), f.anonymous.format(0),
			f.heap.median(), f.stack.median(), f.goroutines.median())
	}
	return table.Flush()
}

func (f *idleFigures) measure(name string, s settings) error {
	srv, err := startServer(name, s.threads)
	if err != nil {
		return err
	}
	defer srv.stop()

	// They have left, but their process stays for as long as is measured: with one more or
	// less that runs this program, Pss would charge its pages differently.
	gone, _, err := startClients("gone", srv.addr, warmupClients)
	if err != nil {
		return err
	}
	usageBefore, memoryBefore, err := srv.collected()
	gone.stop()
	if err != nil {
		return err
	}

	idle, _, err := startClients("idle", srv.addr, s.idle)
	if err != nil {
		return err
	}
	defer idle.stop()
	usageAfter, memoryAfter, err := srv.collected()
	if err != nil {
		return err
	}
	state, err := idle.clientState()
	if err != nil {
		return err
	}
	if state.alive != s.idle {
		return fmt.Errorf("of %d connections only %d were alive when measured", s.idle, state.alive)
	}

	per := func(after, before int64) float64 { return float64(after-before) / float64(s.idle) }
	f.rss = append(f.rss, per(memoryAfter.rss, memoryBefore.rss))
	f.pss = append(f.pss, per(memoryAfter.pss, memoryBefore.pss))
	f.anonymous = append(f.anonymous, per(memoryAfter.anonymous, memoryBefore.anonymous))
	f.heap = append(f.heap, per(int64(usageAfter.Heap), int64(usageBefore.Heap)))
	f.stack = append(f.stack, per(int64(usageAfter.Stack), int64(usageBefore.Stack)))
	f.goroutines = append(f.goroutines, per(int64(usageAfter.Goroutines), int64(usageBefore.Goroutines)))
	return nil
}

// collected returns what the server holds after a collection.
func (s *server) collected() (usage, memory, error) {
	u, err := s.usage(true)
	if err != nil {
		return usage{}, memory{}, err
	}
	m, err := s.memory()
	return u, m, err
}
