package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// settings are what the flags say.
type settings struct {
	servers  []string
	rounds   int
	duration time.Duration // of one measurement
	warmup   time.Duration
	conns    int // ordinary clients
	threads  int // places of Catamount's pool
	pipeline int
	fields   int // of each request
	idle     int // connections; 0: another mode
	slow     int // clients; 0: another mode

	// For the processes that compare starts itself.
	serve, client, target string
	clients               int
}

func main() {
	err := run(os.Args[1:], os.Stdout)
	if errors.Is(err, flag.ErrHelp) {
		return // the flag package has printed it
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	s, err := parse(args)
	if err != nil {
		return err
	}
	switch {
	case s.serve != "":
		return beServer(s.serve, s.threads, os.Stdin, out)
	case s.client != "":
		return beClient(s.client, s.target, s.clients, os.Stdin, out)
	}
	describeMachine(out)
	switch {
	case s.idle > 0:
		return measureIdle(s, out)
	case s.slow > 0:
		return measureSlow(s, out)
	default:
		return measureCPU(s, out)
	}
}

func parse(args []string) (s settings, err error) {
	fs := flag.NewFlagSet("compare", flag.ContinueOnError)
	names := fs.String("servers", "", "comma-separated `names`, of "+strings.Join(serverNames(), ", "))
	fs.IntVar(&s.rounds, "rounds", 5, "rounds")
	fs.DurationVar(&s.duration, "d", 4*time.Second, "duration of one measurement, in whole seconds")
	fs.DurationVar(&s.warmup, "warmup", time.Second, "load before each measurement, in whole seconds")
	fs.IntVar(&s.conns, "c", 64, "keep-alive connections of wrk")
	fs.IntVar(&s.threads, "threads", 16, "places of Catamount's thread pool")
	fs.IntVar(&s.pipeline, "pipeline", 1, "requests that wrk sends in a row")
	fs.IntVar(&s.fields, "fields", 1, "header fields of a request, from 1 (Host) to 30")
	fs.IntVar(&s.idle, "idle", 0, "measure the memory of `N` idle connections")
	fs.IntVar(&s.slow, "slow", 0, "measure the throughput beside `N` clients that send a byte a second")
	fs.StringVar(&s.serve, "serve", "", "internal: be the server of this `name`")
	fs.StringVar(&s.client, "client", "", "internal: be clients of this `kind`")
	fs.StringVar(&s.target, "target", "", "internal: `address` for the clients")
	fs.IntVar(&s.clients, "n", 0, "internal: `number` of clients")
	if err := fs.Parse(args); err != nil {
		return s, err
	}
	if fs.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if min(s.rounds, s.conns, s.pipeline, s.threads) < 1 || min(s.duration, s.warmup) < time.Second {
		return s, errors.New("-rounds, -c, -pipeline and -threads want at least 1, -d and -warmup at least 1s")
	}
	if s.fields < 1 || s.fields > 30 {
		return s, fmt.Errorf("-fields is %d, want 1 to 30", s.fields)
	}
	if s.idle < 0 || s.slow < 0 || s.idle > 0 && s.slow > 0 {
		return s, errors.New("-idle and -slow want a positive number, and exclude each other")
	}
	s.servers, err = choose(*names, s.slow > 0)
	return s, err
}

// choose returns the servers of a run: those named, or the mode's own.
func choose(names string, slow bool) ([]string, error) {
	switch {
	case names == "" && slow:
		return []string{"catamount", "catamount-blocking"}, nil
	case names == "":
		return []string{"catamount", "fasthttp", "nethttp"}, nil
	}
	list := strings.Split(names, ",")
	for _, name := range list {
		if !slices.Contains(serverNames(), name) {
			return nil, fmt.Errorf("-servers: there is no %q, only %s", name, strings.Join(serverNames(), ", "))
		}
	}
	return list, nil
}
