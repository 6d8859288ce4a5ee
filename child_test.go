package catamount_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/catamount-server/catamount"
)

// childVariable makes the test program a server, one of childServers, instead
// of running tests: for what happens to a whole process, and for one that lives
// in a network of its own. It serves until the end of its standard input.
const childVariable = "CATAMOUNT_TEST_CHILD"

// childReport is what a child answers to each line of its standard input.
type childReport struct {
	Addr        string
	Stats       catamount.Stats
	Descriptors int
	Events      []string // what its handlers have seen
}

// childApp is what a child serves.
type childApp struct {
	gate   chan struct{} // what /blocked waits for
	mu     sync.Mutex
	events []string
}

func (a *childApp) note(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.events = append(a.events, fmt.Sprintf(format, args...))
}

func (a *childApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/rest": // more than the socket takes, less than OutputMemory
		_, _ = w.Write(make([]byte, 8<<20))
	case "/stream":
		var err error
		for err == nil {
			_, err = w.Write(make([]byte, 64<<10))
		}
		a.note("stream: %v, %v", err, r.Context().Err())
	case "/blocked":
		stop := context.AfterFunc(r.Context(), func() { a.note("blocked: %v", r.Context().Err()) })
		defer stop()
		<-a.gate
		_, _ = io.WriteString(w, "Completed")
		a.note("released: %v", http.NewResponseController(w).Flush())
	default:
		hello(w, r)
	}
}

// runChild is the child's main function.
func runChild(name string) error {
	addrs := make(chan net.Addr, 1)
	app := &childApp{gate: make(chan struct{})}
	s := childServers[name]()
	s.Addr, s.Handler = "0.0.0.0:0", app
	s.Logger = slog.New(slog.NewJSONHandler(os.Stderr, nil))
	s.BaseContext = func(l net.Listener) context.Context { addrs <- l.Addr(); return context.Background() }
	served := make(chan error, 1)
	go func() { served <- s.ListenAndServe() }()
	report := childReport{}
	select {
	case addr := <-addrs:
		report.Addr = addr.String()
	case err := <-served:
		return err
	}
	input, output := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	for input.Scan() {
		if input.Text() == "release" {
			close(app.gate)
		}
		report.Stats, report.Descriptors = s.Stats(), len(openDescriptors())
		app.mu.Lock()
		report.Events = app.events
		app.mu.Unlock()
		if err := output.Encode(report); err != nil {
			return err
		}
	}
	return s.Close()
}

// child is such a process, seen from the test.
type child struct {
	*exec.Cmd
	t      *testing.T
	stdin  io.WriteCloser
	stdout *json.Decoder
	logs   *logBook // its log
	last   childReport
}

// startChild runs a child until the end of the test, with the words of prefix
// before its own.
func startChild(t *testing.T, name string, prefix ...string) *child {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	words := append(prefix, program)
	c := &child{Cmd: exec.Command(words[0], words[1:]...), t: t, logs: &logBook{}}
	c.Env = append(os.Environ(), childVariable+"="+name)
	if c.stdin, err = c.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.stdout = json.NewDecoder(stdout)
	other := &logReader{book: c.logs}
	c.Stderr = other
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the child's last words: %+v; its log: %v", c.last, c.logs.all())
		}
		c.stdin.Close()
		watchdog := time.AfterFunc(patience, func() { _ = c.Process.Kill() })
		defer watchdog.Stop()
		if err := c.Wait(); err != nil || other.rest.Len() > 0 {
			t.Errorf("the child ended with %v, and said: %s", err, &other.rest)
		}
	})
	return c
}

// tell sends a command, and returns what there is to report afterwards. "" is
// no command.
func (c *child) tell(command string) (report childReport) {
	c.t.Helper()
	if _, err := io.WriteString(c.stdin, command+"\n"); err != nil {
		c.t.Fatal(err)
	}
	if err := c.stdout.Decode(&report); err != nil {
		c.t.Fatalf("the child says nothing: %v", err)
	}
	c.last = report
	return report
}

// await waits for a report of which something holds.
func (c *child) await(what string, holds func(childReport) bool) (report childReport) {
	c.t.Helper()
	poll(c.t, what, func() bool {
		report = c.tell("")
		return holds(report)
	})
	return report
}

// logReader turns lines of JSON into those of a logBook; the rest, such as what
// the race detector says, is kept. Only one goroutine writes to it.
type logReader struct {
	book *logBook
	part []byte
	rest bytes.Buffer
}

func (l *logReader) Write(p []byte) (int, error) {
	l.part = append(l.part, p...)
	for {
		line, after, whole := bytes.Cut(l.part, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		l.part = append([]byte(nil), after...)
		attrs := make(map[string]any)
		if json.Unmarshal(line, &attrs) != nil {
			l.rest.Write(append(line, '\n'))
			continue
		}
		r := slog.Record{Message: fmt.Sprint(attrs["msg"])}
		for key, value := range attrs {
			r.AddAttrs(slog.String(key, strings.TrimSpace(fmt.Sprint(value))))
		}
		_ = l.book.Handle(context.Background(), r)
	}
}
