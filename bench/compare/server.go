package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"github.com/catamount-server/catamount"
	"github.com/valyala/fasthttp"
)

const answer = "Hello, World!"

// hello is the app of every server that runs an http.Handler.
func hello(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(w, answer)
}

// servers are the servers to compare. Each serves l until it is closed.
var servers = map[string]func(l net.Listener, threads int) error{
	"catamount":          func(l net.Listener, threads int) error { return serveCatamount(l, threads, true) },
	"catamount-blocking": func(l net.Listener, threads int) error { return serveCatamount(l, threads, false) },
	"nethttp":            func(l net.Listener, _ int) error { return http.Serve(l, http.HandlerFunc(hello)) },
	"epoll":              func(l net.Listener, _ int) error { return serveFloor(l) },
	"fasthttp":           func(l net.Listener, _ int) error { return serveFasthttp(l) },
}

func serverNames() []string { return slices.Sorted(maps.Keys(servers)) }

func serveCatamount(l net.Listener, threads int, queueRequests bool) error {
	s := &catamount.Server{
		Handler:       http.HandlerFunc(hello),
		MaxThreads:    threads,
		QueueRequests: &queueRequests,
		Logger:        slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	}
	return s.Serve(l)
}

func serveFasthttp(l net.Listener) error {
	return fasthttp.Serve(l, func(ctx *fasthttp.RequestCtx) {
		ctx.SetContentType("text/plain; charset=utf-8")
		ctx.WriteString(answer)
	})
}

// usage is what a server process tells about itself.
type usage struct {
	User, System time.Duration // CPU time since its start
	Heap, Stack  uint64        // bytes in use by Go's heap and stacks
	Goroutines   int
}

// beServer is the body of a server process. It prints its address, then
// answers each line on stdin with a line of JSON (a usage), after a garbage
// collection when the line is "gc". It ends with its stdin, and so with its
// parent: nothing is left behind however a run ends.
func beServer(name string, threads int, in io.Reader, out io.Writer) error {
	serve, ok := servers[name]
	if !ok {
		return fmt.Errorf("there is no server %q", name)
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // Go's default, but not what is to be measured
	l, err := lc.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- serve(l, threads) }()
	fmt.Fprintln(out, l.Addr())

	ended := make(chan error, 1)
	go func() { ended <- answerUsage(in, out) }()
	select {
	case err := <-failed:
		return errors.Join(errors.New("the server ended"), err)
	case err := <-ended:
		return err
	}
}

func answerUsage(in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if lines.Text() == "gc" {
			// Twice: what pools hold survives the first collection.
			runtime.GC()
			runtime.GC()
			debug.FreeOSMemory()
		}
		u, err := readUsage()
		if err != nil {
			return err
		}
		if err := json.NewEncoder(out).Encode(u); err != nil {
			return err
		}
	}
	return lines.Err()
}

func readUsage() (usage, error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return usage{}, err
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{
		User:       time.Duration(r.Utime.Nano()),
		System:     time.Duration(r.Stime.Nano()),
		Heap:       m.HeapInuse,
		Stack:      m.StackInuse,
		Goroutines: runtime.NumGoroutine(),
	}, nil
}
