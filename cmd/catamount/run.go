package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"

	"github.com/catamount-server/catamount"
	"github.com/catamount-server/catamount/internal/demo"
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
		return catamount.ExitUsage
	}
	switch command, rest := args[0], args[1:]; command {
	case "serve":
		return catamount.Launch(ctx, catamount.Program{
			Name: "catamount serve",
			Args: rest,
			// A demo app is for whoever sits at this machine.
			Config: catamount.Config{DefaultHost: "127.0.0.1"},
			Stdout: stdout, Stderr: stderr,
		}, catamount.App{Handler: demoHandler})
	case "version", "-V", "-version", "--version":
		fmt.Fprintf(stdout, "catamount %s (%s %s/%s)\n",
			catamount.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return catamount.ExitOK
	case "help", "-h", "-help", "--help":
		fmt.Fprint(stdout, help)
		return catamount.ExitOK
	default:
		fmt.Fprintf(stderr, "catamount: unknown command %q (see \"catamount help\")\n", command)
		return catamount.ExitUsage
	}
}

// demoHandler makes the demo app in each worker.
func demoHandler(w *catamount.Worker) (http.Handler, error) {
	return demo.Handler(demo.Options{
		PlaceOf: catamount.PlaceOf,
		Worker:  w.Index(),
		Version: catamount.Version,
	}), nil
}
