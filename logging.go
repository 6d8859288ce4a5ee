package catamount

import (
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"strings"
)

// newLogger logs as text for a person at a terminal, else as JSON for a
// machine. A record is one write, so that those of several processes do not
// mix.
func newLogger(w io.Writer, quiet bool) *slog.Logger {
	opts := &slog.HandlerOptions{Level: slog.LevelInfo}
	if quiet {
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

// announce says what has been started: on a terminal with Puma's banner, else
// with one log line, so that a log has no lines that are not records.
func (r *resolved) announce(stdout io.Writer, logger *slog.Logger, urls []string) {
	switch {
	case r.Quiet:
	case isTerminal(stdout):
		r.printBanner(stdout, urls, os.Getpid())
	default:
		low, high, queue := r.server.threads()
		logger.Info("Listening on "+strings.Join(urls, ", "),
			"version", Version, "go", runtime.Version(), "pid", os.Getpid(), "binds", urls,
			"workers", r.workers, "min_threads", low, "max_threads", high, "queue_requests", queue)
	}
}

func (r *resolved) printBanner(w io.Writer, urls []string, pid int) {
	low, high, queue := r.server.threads()
	mode := "reactor (queue_requests on)"
	if !queue {
		mode = "blocking (queue_requests off)"
	}
	processes := "single"
	if r.workers > 0 {
		processes = "cluster"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Catamount starting in %s mode...\n", processes)
	fmt.Fprintf(&b, "* Catamount version: %s (%s)\n", Version, runtime.Version())
	fmt.Fprintf(&b, "*  Min threads: %d\n", low)
	fmt.Fprintf(&b, "*  Max threads: %d\n", high)
	fmt.Fprintf(&b, "*  Mode: %s\n", mode)
	if r.workers > 0 {
		fmt.Fprintf(&b, "*   Master PID: %d\n", pid)
		fmt.Fprintf(&b, "*      Workers: %d\n", r.workers)
		fmt.Fprintf(&b, "*     Restarts: phased (kill -USR1 %d), hot (kill -USR2 %d)\n", pid, pid)
	} else {
		fmt.Fprintf(&b, "*          PID: %d\n", pid)
	}
	for _, url := range urls {
		fmt.Fprintf(&b, "* Listening on %s\n", url)
	}
	fmt.Fprintln(&b, "Use Ctrl-C to stop")
	io.WriteString(w, b.String())
}

// threads are the numbers that the banner shows.
func (s *Server) threads() (low, high int, queue bool) {
	return s.MinThreads, orDefault(s.MaxThreads, DefaultMaxThreads), s.QueueRequests == nil || *s.QueueRequests
}
