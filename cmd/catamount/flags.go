package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/catamount-server/catamount"
	"github.com/catamount-server/catamount/internal/demo"
)

const (
	defaultHost = "127.0.0.1" // a demo app is for whoever sits at this machine
	defaultPort = "9292"      // Puma's

	defaultMinThreads = 0
	defaultMaxThreads = catamount.DefaultMaxThreads
)

const serveHelp = `Usage: catamount serve [flags]

Serves the built-in demo app until INT or TERM, and then ends when the requests
that run have been answered; a second INT or TERM ends it at once. QUIT prints
the stacks of all goroutines.

Flags:
  -b, --bind URI          listen on tcp://host:port or unix:///path; may be
                          repeated (default tcp://127.0.0.1:9292)
  -p, --port PORT         listen on this port of 127.0.0.1; 0 takes a free one
  -t, --threads MIN:MAX   bounds of the thread pool; N stands for N:N
                          (default 0:256)
  --queue-requests=false  blocking mode: a thread reads its client's request
                          itself, instead of the reactor (Puma's queue_requests)
  -q, --quiet             print no banner, log warnings and errors only
  -h, --help              print this text
`

// config is what the flags of serve say.
type config struct {
	binds                  []bind
	minThreads, maxThreads int
	queueRequests          bool
	quiet                  bool
}

// parseServe reads the flags of serve. Its errors name the flag and the
// reason; flag.ErrHelp means that help was asked for.
func parseServe(args []string) (config, error) {
	cfg := config{minThreads: defaultMinThreads, maxThreads: defaultMaxThreads}

	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // the caller prints the error, on one line
	value := func(short, long string, set func(string) error) {
		fs.Func(short, "", set)
		fs.Func(long, "", set)
	}
	value("b", "bind", func(s string) error {
		b, err := parseBind(s)
		cfg.binds = append(cfg.binds, b)
		return err
	})
	value("p", "port", func(s string) error {
		cfg.binds = append(cfg.binds, tcpBind(defaultHost, s))
		return checkPort(s)
	})
	value("t", "threads", func(s string) (err error) {
		cfg.minThreads, cfg.maxThreads, err = parseThreads(s)
		return err
	})
	fs.BoolVar(&cfg.queueRequests, "queue-requests", true, "")
	fs.BoolVar(&cfg.quiet, "q", false, "")
	fs.BoolVar(&cfg.quiet, "quiet", false, "")

	if err := fs.Parse(args); err != nil {
		return config{}, err
	}
	if extra := fs.Arg(0); extra != "" || fs.NArg() > 0 {
		// The flag package ends at "--queue-requests false": say what was meant.
		return config{}, fmt.Errorf("unexpected argument %q (the value of a switch is given as --switch=value)", extra)
	}
	if len(cfg.binds) == 0 {
		cfg.binds = []bind{tcpBind(defaultHost, defaultPort)}
	}
	return cfg, nil
}

// parseThreads reads Puma's notation: "min:max", or "n" for "n:n".
func parseThreads(s string) (low, high int, err error) {
	first, second, both := strings.Cut(s, ":")
	if !both {
		second = first
	}
	low, err1 := strconv.Atoi(first)
	high, err2 := strconv.Atoi(second)
	switch {
	case err1 != nil || err2 != nil:
		return 0, 0, errors.New("want MIN:MAX or one number, in whole numbers")
	case low < 0:
		return 0, 0, fmt.Errorf("the minimum %d is less than 0", low)
	case high < 1:
		return 0, 0, fmt.Errorf("the maximum %d is less than 1", high)
	case low > high:
		return 0, 0, fmt.Errorf("the minimum %d is more than the maximum %d", low, high)
	}
	return low, high, nil
}

// server returns the server that the flags describe, without a Logger.
func (c config) server() *catamount.Server {
	return &catamount.Server{
		Handler: demo.Handler(demo.Options{
			PlaceOf: catamount.PlaceOf,
			Version: catamount.Version,
		}),
		MinThreads:    c.minThreads,
		MaxThreads:    c.maxThreads,
		QueueRequests: &c.queueRequests,
	}
}
