package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/catamount-server/catamount/bench/internal/process"
)

// RoleName is the role of a server's process.
const RoleName = "server"

// Spec is which server runs, and how.
type Spec struct {
	Server    string
	App       string
	Threads   int    // places of the pool, of servers that have one; at least 1
	Workers   int    // processes of a cluster; at least 1
	Directory string // the bench's own: with the file, and for scratch
}

// greeting is the first line of a server's process.
type greeting struct {
	Addr string
	PID  int // of the process that all of the server's others descend from
}

// Inside is what a server's process tells about itself; zero for programs.
type Inside struct {
	Heap, Stack uint64 // bytes in use by Go's heap and stacks
	Goroutines  int
	Parked      int64 // handlers that wait to be released
}

// The words that a server's process understands. It answers each with its
// Inside.
const (
	wordLook    = "look"
	wordCollect = "collect" // garbage, first
	wordRelease = "release" // those who are parked, first
)

// Role is the body of a server's process: it greets, answers words and ends
// with its stdin.
func Role(text []byte, in io.Reader, out io.Writer) error {
	var spec Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	s, ok := Find(spec.Server)
	if !ok {
		return fmt.Errorf("there is no server %q", spec.Server)
	}
	if !s.Answers(spec.App) {
		return fmt.Errorf("%s has no app %q", s.Name, spec.App)
	}
	c := newContent(spec)
	failed := make(chan error, 1)
	hello, stop, err := s.begin(spec, c, failed)
	if err != nil {
		return err
	}
	defer stop()
	if err := process.Reply(out, hello); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- obey(c, in, out) }()
	select {
	case err := <-failed:
		return fmt.Errorf("the server ended: %w", errors.Join(err))
	case err := <-ended:
		return err
	}
}

// begin starts the server. It may fail later, over the channel.
func (s Server) begin(spec Spec, c *content, failed chan<- error) (g greeting, stop func(), err error) {
	if s.listener == nil {
		return s.beginAddressed(spec, c, failed)
	}
	var config net.ListenConfig
	config.SetMultipathTCP(false) // Go's default, but not what is to be measured
	l, err := config.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		return g, nil, err
	}
	go func() { failed <- s.listener(l, spec, c) }()
	return greeting{Addr: l.Addr().String(), PID: os.Getpid()}, func() {}, nil
}

// beginAddressed starts a server that binds an address by itself.
func (s Server) beginAddressed(spec Spec, c *content, failed chan<- error) (g greeting, stop func(), err error) {
	if g.Addr, err = freeAddress(); err != nil {
		return g, nil, err
	}
	switch {
	case s.cluster:
		cmd, err := clusterCommand(g.Addr, spec)
		if err != nil {
			return g, nil, err
		}
		if g.PID, stop, err = startGroup(cmd); err != nil {
			return g, nil, err
		}
	case s.program != nil:
		if g.PID, stop, err = s.program.start(g.Addr, spec); err != nil {
			return g, nil, err
		}
	default:
		g.PID, stop = os.Getpid(), func() {}
		go func() { failed <- s.addressed(g.Addr, spec, c) }()
	}
	if err := awaitListener(g.Addr, 20*time.Second); err != nil {
		stop()
		return g, nil, err
	}
	return g, stop, nil
}

func obey(c *content, in io.Reader, out io.Writer) error {
	words := bufio.NewScanner(in)
	for words.Scan() {
		switch words.Text() {
		case wordCollect:
			// Twice: what pools hold survives the first collection.
			runtime.GC()
			runtime.GC()
			debug.FreeOSMemory()
		case wordRelease:
			c.parked.free()
		case wordLook:
		default:
			return fmt.Errorf("server: unknown word %q", words.Text())
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		inside := Inside{Heap: m.HeapInuse, Stack: m.StackInuse, Goroutines: runtime.NumGoroutine(), Parked: c.parked.inside.Load()}
		if err := process.Reply(out, inside); err != nil {
			return err
		}
	}
	return words.Err()
}
