package main

import (
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"strings"

	"github.com/catamount-server/catamount"
)

// announce says what has been started: on a terminal with Puma's banner, else
// with one log line, so that a log has no lines that are not records.
func announce(cfg config, urls []string, stdout io.Writer, logger *slog.Logger) {
	switch {
	case cfg.quiet:
	case isTerminal(stdout):
		printBanner(stdout, cfg, urls, os.Getpid())
	default:
		logger.Info("Listening on "+strings.Join(urls, ", "),
			"version", catamount.Version, "go", runtime.Version(), "pid", os.Getpid(), "binds", urls,
			"min_threads", cfg.minThreads, "max_threads", cfg.maxThreads, "queue_requests", cfg.queueRequests)
	}
}

func printBanner(w io.Writer, cfg config, urls []string, pid int) {
	mode := "reactor (queue_requests on)"
	if !cfg.queueRequests {
		mode = "blocking (queue_requests off)"
	}
	var b strings.Builder
	fmt.Fprintln(&b, "Catamount starting in single mode...")
	fmt.Fprintf(&b, "* Catamount version: %s (%s)\n", catamount.Version, runtime.Version())
	fmt.Fprintf(&b, "*  Min threads: %d\n", cfg.minThreads)
	fmt.Fprintf(&b, "*  Max threads: %d\n", cfg.maxThreads)
	fmt.Fprintf(&b, "*  Mode: %s\n", mode)
	fmt.Fprintf(&b, "*          PID: %d\n", pid)
	for _, url := range urls {
		fmt.Fprintf(&b, "* Listening on %s\n", url)
	}
	fmt.Fprintln(&b, "Use Ctrl-C to stop")
	io.WriteString(w, b.String())
}

// newLogger logs as text for a person at a terminal, else as JSON for a
// machine.
func newLogger(cfg config, w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: slog.LevelInfo}
	if cfg.quiet {
		opts.Level = slog.LevelWarn
	}
	if isTerminal(w) {
		return slog.New(slog.NewTextHandler(w, opts))
	}
	return slog.New(slog.NewJSONHandler(w, opts))
}

// isTerminal reports whether w is a character device other than /dev/null:
// what the standard library can tell, and enough to choose a format.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&fs.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}
