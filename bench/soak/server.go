package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/catamount-server/catamount"
)

// The server's deadlines are short, so that a run meets all of them; the
// clients know them.
const (
	maxThreads       = 32
	maxKeepAlive     = 100 // requests per connection
	firstByteTimeout = 3 * time.Second
	headTimeout      = 2 * time.Second
	bodyIdleTimeout  = 2 * time.Second
	bodyGrace        = 4 * time.Second
	idleTimeout      = 5 * time.Second
	writeGrace       = 8 * time.Second

	// So little that slow readers meet all of it: memory, files, and waiting.
	outputMemory      = 64 << 10
	outputMemoryTotal = 1 << 20
	outputFile        = 3 << 20
	outputFileTotal   = 16 << 20
)

// patternBytes is the size of the file of which handlers send parts: enough for
// any part that clients ask for.
const patternBytes = period + 16<<20

func bodiesIn(directory string) string  { return filepath.Join(directory, "bodies") }
func patternIn(directory string) string { return filepath.Join(directory, "pattern") }

// prepare makes what the server needs in its directory.
func prepare(directory string) error {
	if err := os.Mkdir(bodiesIn(directory), 0o700); err != nil {
		return err
	}
	return os.WriteFile(patternIn(directory), content{0, patternBytes}.bytes(), 0o600)
}

func newServer(handler *app, logger *slog.Logger) *catamount.Server {
	return &catamount.Server{
		Handler:           handler.routes(),
		Logger:            logger,
		MaxThreads:        maxThreads,
		MaxKeepAlive:      maxKeepAlive,
		BodyDirectory:     bodiesIn(handler.directory),
		OutputMemory:      outputMemory,
		OutputMemoryTotal: outputMemoryTotal,
		OutputFile:        outputFile,
		OutputFileTotal:   outputFileTotal,
		StreamRequest:     isLive,
		OnWriteFailure:    func(catamount.WriteFailure) { handler.undelivered.Add(1) },
		FirstByteTimeout:  firstByteTimeout,
		ReadHeaderTimeout: headTimeout,
		BodyIdleTimeout:   bodyIdleTimeout,
		BodyGrace:         bodyGrace,
		IdleTimeout:       idleTimeout,
		WriteGrace:        writeGrace,
	}
}

// beServer is the body of the server's process. It prints its greeting, then
// answers each command on stdin with a snapshot, and ends with its stdin, and so
// with its parent: nothing is left behind however a run ends.
func beServer(s settings, in io.Reader, out io.Writer) error {
	log := &lineCounter{lines: map[string]int{}, next: slog.DiscardHandler}
	if s.verbose {
		log.next = slog.NewTextHandler(os.Stderr, nil)
	}
	handler := &app{directory: s.directory, faulty: s.faulty}
	self := &self{app: handler, log: log, bodies: bodiesIn(s.directory), watch: newWatch()}
	self.server = newServer(handler, slog.New(log)) // nothing runs yet
	go self.watch.run(context.Background(), self.probe)
	self.own = runtime.NumGoroutine()

	l, err := listen(s.sendBuffer)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- self.server.Serve(l) }()
	encoder := json.NewEncoder(out)
	if err := encoder.Encode(greeting{l.Addr().String(), runtime.GOMAXPROCS(0)}); err != nil {
		return err
	}
	commands := bufio.NewScanner(in)
	for commands.Scan() {
		var c command
		if err := json.Unmarshal(commands.Bytes(), &c); err != nil {
			return err
		}
		if err := encoder.Encode(self.obey(c, served)); err != nil {
			return err
		}
	}
	return commands.Err()
}

// defaultSendBuffer is about what a connection over a network has. On the
// loopback interface the kernel makes it megabytes: then hardly an answer would
// wait in the server, and as epoll tells of room when a third of the buffer is
// free, a client that reads slowly would not be seen to read for longer than
// the short grace for writes.
const defaultSendBuffer = 64 << 10

// listen returns a listener whose connections inherit its send buffer.
func listen(sendBuffer int) (net.Listener, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false) // as Server.ListenAndServe does
	if sendBuffer > 0 {
		config.Control = func(_, _ string, raw syscall.RawConn) error {
			return setBuffer(raw, syscall.SO_SNDBUF, sendBuffer)
		}
	}
	return config.Listen(context.Background(), "tcp4", "127.0.0.1:0")
}

func setBuffer(raw syscall.RawConn, option, size int) error {
	var err error
	controlErr := raw.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, option, size)
	})
	return errors.Join(controlErr, err)
}

func (s *self) obey(c command, served <-chan error) (reply snapshot) {
	var err error
	switch c.Name {
	case "look":
		reply, err = s.look(false)
	case "collect":
		reply, err = s.look(true)
	case "shutdown":
		ctx, cancel := context.WithTimeout(context.Background(), answerTime/2)
		defer cancel()
		if err = s.server.Shutdown(ctx); err == nil {
			if ended := <-served; !errors.Is(ended, catamount.ErrServerClosed) {
				err = fmt.Errorf("serving ended with %w", ended)
			}
		}
	default:
		err = fmt.Errorf("there is no command %q", c.Name)
	}
	if err != nil {
		reply.Failure = err.Error()
	}
	return reply
}

// lineCounter counts the server's log lines. Lines that come too often are
// thinned by the server; so these are what an operator would see.
type lineCounter struct {
	next  slog.Handler
	mu    sync.Mutex
	lines map[string]int // by level and message
}

func (c *lineCounter) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo
}

func (c *lineCounter) Handle(ctx context.Context, r slog.Record) error {
	c.mu.Lock()
	c.lines[r.Level.String()+" "+r.Message]++
	c.mu.Unlock()
	if c.next.Enabled(ctx, r.Level) {
		return c.next.Handle(ctx, r)
	}
	return nil
}

// WithAttrs and WithGroup are not used by the server.
func (c *lineCounter) WithAttrs([]slog.Attr) slog.Handler { return c }
func (c *lineCounter) WithGroup(string) slog.Handler      { return c }
