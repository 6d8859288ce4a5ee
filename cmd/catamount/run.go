package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime"

	"github.com/catamount-server/catamount"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1 // serving failed
	exitUsage   = 2 // the arguments are wrong; what the flag package uses
)

const help = `Catamount is an HTTP server with an epoll reactor and a bounded thread pool.

Usage: catamount <command> [flags]

Commands:
  serve     serve the built-in demo app; "catamount serve -h" lists its flags
  version   print the version
  help      print this text
`

// run is the program: it returns the exit code. When ctx is done, it stops as
// it does on TERM.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, help)
		return exitUsage
	}
	switch command, rest := args[0], args[1:]; command {
	case "serve":
		return runServe(ctx, rest, stdout, stderr)
	case "version", "-V", "-version", "--version":
		fmt.Fprintf(stdout, "catamount %s (%s %s/%s)\n",
			catamount.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return exitOK
	case "help", "-h", "-help", "--help":
		fmt.Fprint(stdout, help)
		return exitOK
	default:
		fmt.Fprintf(stderr, "catamount: unknown command %q (see \"catamount help\")\n", command)
		return exitUsage
	}
}

func runServe(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg, err := parseServe(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, serveHelp)
		return exitOK
	}
	if err == nil {
		err = cfg.server().Validate()
	}
	if err != nil {
		fmt.Fprintf(stderr, "catamount serve: %v (see \"catamount serve -h\")\n", err)
		return exitUsage
	}
	return serve(ctx, cfg, stdout, stderr)
}
