package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"time"
)

// settings are what the flags say.
type settings struct {
	duration   time.Duration // of the traffic
	settle     time.Duration // how long the server may take to be quiet again
	seed       uint64
	verbose    bool
	processors int // GOMAXPROCS of the server; 0: as in the environment
	scale      int // how many times the usual number of clients
	kinds      []kind
	sendBuffer int // bytes of the server's sockets; 0: the kernel's choice

	// For the process that soak starts itself.
	serve     bool
	directory string // of the server's files
	faulty    bool   // the application does what soak has to find
}

func main() {
	err := run(os.Args[1:], os.Stdout)
	if errors.Is(err, flag.ErrHelp) {
		return // the flag package has printed it
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	s, err := parse(args)
	if err != nil {
		return err
	}
	if s.serve {
		return beServer(s, os.Stdin, out)
	}
	return soak(s, out)
}

func parse(args []string) (s settings, err error) {
	fs := flag.NewFlagSet("soak", flag.ContinueOnError)
	fs.DurationVar(&s.duration, "d", time.Minute, "duration of the traffic")
	fs.DurationVar(&s.settle, "settle", 75*time.Second, "how long the server may take to be quiet after the traffic")
	fs.Uint64Var(&s.seed, "seed", 0, "seed of all random choices; 0 picks one")
	fs.BoolVar(&s.verbose, "v", false, "print every unexpected event, and the server's log")
	fs.IntVar(&s.processors, "procs", 0, "GOMAXPROCS of the server; 0 leaves it alone")
	fs.IntVar(&s.scale, "scale", 1, "how many `times` the usual number of clients")
	fs.IntVar(&s.sendBuffer, "sndbuf", defaultSendBuffer, "`bytes` of the server's send buffers; 0 leaves them to the kernel")
	names := fs.String("kinds", "", "comma-separated kinds of clients; all without")
	fs.BoolVar(&s.serve, "serve", false, "internal: be the server")
	fs.StringVar(&s.directory, "directory", "", "internal: `directory` of the server's files")
	fs.BoolVar(&s.faulty, "faulty", false, "internal: an application with faults, which have to be found")
	if err := fs.Parse(args); err != nil {
		return s, err
	}
	switch {
	case fs.NArg() > 0:
		return s, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case s.duration <= 0 || s.settle <= 0:
		return s, errors.New("-d and -settle want more than 0")
	case s.scale < 1 || s.processors < 0 || s.sendBuffer < 0:
		return s, errors.New("-scale wants at least 1, -procs and -sndbuf at least 0")
	case s.serve && s.directory == "":
		return s, errors.New("-serve wants -directory")
	}
	for s.seed == 0 {
		s.seed = rand.Uint64()
	}
	s.kinds, err = choose(*names)
	return s, err
}

// soak is the whole run; its error says how many things were wrong.
func soak(s settings, out io.Writer) error {
	directory, err := os.MkdirTemp("", "soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(directory)
	if err := prepare(directory); err != nil {
		return err
	}
	s.directory = directory
	server, err := startServer(s)
	if err != nil {
		return err
	}
	defer server.stop()
	fmt.Fprintf(out, "%s %s/%s, %d processors; seed %d; server %s, GOMAXPROCS %d; %v of traffic\n",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), s.seed, server.addr, server.processors, s.duration)

	wrong := warmUp(server.addr)
	before, err := server.rest(nil, s.settle)
	if err != nil {
		return err
	}
	traffic := newTraffic(s, server.addr, out)
	trafficErr := traffic.run(server)
	fmt.Fprintln(out)
	traffic.print(out)
	if trafficErr != nil {
		return trafficErr
	}
	after, err := server.rest(before, s.settle)
	if err != nil {
		return err
	}
	r := report{before: before, after: after}
	r.judge()
	if r.shutdown, err = server.shutdown(); err != nil {
		return err
	}
	r.judgeShutdown()
	r.print(out)
	wrong = append(append(wrong, traffic.faults()...), r.faults...)
	if len(wrong) == 0 {
		fmt.Fprintln(out, "\nnothing was lost, nothing has leaked")
		return nil
	}
	fmt.Fprintln(out, "\nWRONG:")
	for _, line := range wrong {
		fmt.Fprintln(out, "-", line)
	}
	return fmt.Errorf("%d things are wrong (seed %d)", len(wrong), s.seed)
}
