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

// settings are the flags of a measuring run.
type settings struct {
	servers  []string
	rounds   int
	duration time.Duration // of one measurement
	warmup   time.Duration
	conns    int // ordinary clients
	threads  int // places of Catamount's pool
	pipeline int
}

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "compare:", err)
			os.Exit(1)
		}
	}
}

func run(args []string, out io.Writer) error {
	var (
		s       settings
		servers string
		serve   = flag.NewFlagSet("compare", flag.ContinueOnError)
		role    = serve.String("serve", "", "be the `server` of this name (used by compare itself)")
		client  = serve.String("client", "", "be clients of this `kind` (used by compare itself)")
		target  = serve.String("target", "", "`address` that the clients connect to (used by compare itself)")
		count   = serve.Int("n", 0, "`number` of clients (used by compare itself)")
		idle    = serve.Int("idle", 0, "measure the memory of `N` idle connections")
		slow    = serve.Int("slow", 0, "measure the throughput beside `N` clients that send a byte a second")
	)
	serve.StringVar(&servers, "servers", "", "comma-separated `names`: "+strings.Join(serverNames(), ", "))
	serve.IntVar(&s.rounds, "rounds", 5, "rounds")
	serve.DurationVar(&s.duration, "d", 4*time.Second, "duration of one measurement, in whole seconds")
	serve.DurationVar(&s.warmup, "warmup", time.Second, "load before each measurement, in whole seconds")
	serve.IntVar(&s.conns, "c", 64, "keep-alive connections of wrk")
	serve.IntVar(&s.threads, "threads", 16, "places of Catamount's thread pool")
	serve.IntVar(&s.pipeline, "pipeline", 1, "requests that wrk sends in a row")
	if err := serve.Parse(args); err != nil {
		return err
	}
	if serve.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", serve.Arg(0))
	}

	switch {
	case *role != "":
		return beServer(*role, s.threads, os.Stdin, os.Stdout)
	case *client != "":
		return beClient(*client, *target, *count, os.Stdin, os.Stdout)
	case s.rounds < 1 || s.conns < 1 || s.pipeline < 1 || s.duration < time.Second || s.warmup < time.Second:
		return errors.New("-rounds, -c and -pipeline want at least 1, -d and -warmup at least 1s")
	}

	choose := func(defaults ...string) error {
		s.servers = defaults
		if servers != "" {
			s.servers = strings.Split(servers, ",")
		}
		for _, name := range s.servers {
			if !slices.Contains(serverNames(), name) {
				return fmt.Errorf("-servers: there is no %q, only %s", name, strings.Join(serverNames(), ", "))
			}
		}
		return nil
	}
	describeMachine(out)
	switch {
	case *idle > 0:
		if err := choose("catamount", "fasthttp", "nethttp"); err != nil {
			return err
		}
		return measureIdle(s, *idle, out)
	case *slow > 0:
		if err := choose("catamount", "catamount-blocking"); err != nil {
			return err
		}
		return measureSlow(s, *slow, out)
	default:
		if err := choose("catamount", "fasthttp", "nethttp"); err != nil {
			return err
		}
		return measureCPU(s, out)
	}
}
