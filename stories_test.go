package catamount_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/catamount-server/catamount"
)

// This file and its neighbours (stories_*_test.go, halfdead_*_test.go) hold
// troubles that people have told of other servers, each made again with a real
// client and shown ended here; docs/vanished.md tells what becomes of the client
// in each.

// logBook is a slog.Handler that keeps what is logged.
type logBook struct {
	mu    sync.Mutex
	lines []logLine
}

type logLine struct {
	message string
	attrs   map[string]string
}

func (b *logBook) Enabled(context.Context, slog.Level) bool { return true }
func (b *logBook) WithAttrs([]slog.Attr) slog.Handler       { return b }
func (b *logBook) WithGroup(string) slog.Handler            { return b }

func (b *logBook) Handle(_ context.Context, r slog.Record) error {
	line := logLine{r.Message, make(map[string]string)}
	r.Attrs(func(a slog.Attr) bool {
		line.attrs[a.Key] = a.Value.String()
		return true
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, line)
	return nil
}

// all returns the lines so far. Those of a server that has ended are complete.
func (b *logBook) all() []logLine {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.lines)
}

// only ends the server and returns its one line, of which want are attributes.
func (b *logBook) only(t *testing.T, s *catamount.Server, message string, want map[string]string) logLine {
	t.Helper()
	end(t, s)
	lines := b.all()
	if len(lines) != 1 || lines[0].message != message {
		t.Fatalf("log %v, want one line %q", lines, message)
	}
	for key, value := range want {
		if lines[0].attrs[key] != value {
			t.Errorf("%s of the log line is %q, want %q: %v", key, lines[0].attrs[key], value, lines[0])
		}
	}
	return lines[0]
}

// noConnections waits until the server has let go of all of them.
func noConnections(t *testing.T, s *catamount.Server) {
	t.Helper()
	poll(t, "no connection is left", func() bool { return connections(s.Stats()) == 0 })
}

// poll is until for what may take a while: it leaves the processors to those
// that it waits for.
func poll(t testing.TB, what string, holds func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-ticker.C {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func connections(stats catamount.Stats) (n int) {
	for _, count := range stats.Connections {
		n += count
	}
	return n
}

// isGone reports whether a write failed because the client is not there.
func isGone(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

// causeOf is how the log and the Stats call such an error.
func causeOf(err error) string {
	if errors.Is(err, syscall.EPIPE) {
		return "broken_pipe"
	}
	return "reset"
}

// leavingClients ask the server at an address and leave before the answer. Each
// returns when it left, as far as it knows.
var leavingClients = map[string]func(t *testing.T, addr string) time.Time{
	"curl": func(t *testing.T, addr string) time.Time {
		path, err := exec.LookPath("curl")
		if err != nil {
			t.Skip("no curl here")
		}
		output, err := exec.Command(path, "-sS", "-m", "1", "http://"+addr+"/report").CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 28 || !bytes.Contains(output, []byte("0 bytes received")) {
			t.Errorf("curl: %v, %q, want a time-out", err, output)
		}
		return time.Now()
	},
	"Go client": func(t *testing.T, addr string) time.Time {
		client := http.Client{Timeout: time.Second, Transport: &http.Transport{}}
		if _, err := client.Get("http://" + addr + "/report"); err == nil || !os.IsTimeout(err) {
			t.Errorf("Get = %v, want a time-out", err)
		}
		return time.Now()
	},
	"bare connection": func(t *testing.T, addr string) time.Time {
		conn := dial(t, "tcp", addr)
		if _, err := io.WriteString(conn, request("GET /report HTTP/1.1", "Host: h")); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := conn.Read(make([]byte, 1)); !os.IsTimeout(err) {
			t.Errorf("Read = %v, want a time-out", err)
		}
		left := time.Now()
		conn.Close()
		return left
	},
}

// watchedHandler goes through a request as an application does that takes its
// time and does not look: it writes its answer only when it is told to.
type watchedHandler struct {
	entered   chan struct{}
	cancelled chan time.Time // when the context ended
	release   chan struct{}
	writes    int // of 64 KiB each; 0: a few bytes
	written   chan error
}

func newWatchedHandler(writes int) *watchedHandler {
	return &watchedHandler{make(chan struct{}), make(chan time.Time, 1), make(chan struct{}), writes, make(chan error, 1)}
}

func (h *watchedHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	close(h.entered)
	<-r.Context().Done()
	h.cancelled <- time.Now()
	<-h.release
	if h.writes == 0 {
		_, err := io.WriteString(w, "Completed")
		h.written <- err
		return
	}
	for range h.writes {
		if _, err := w.Write(make([]byte, 64<<10)); err != nil {
			h.written <- err
			return
		}
	}
	h.written <- nil
}

// An action takes 90 s, its client leaves after 30; Puma 5 ran it to its end,
// swallowed the error of the write, and its application logged "200 OK". Here
// the handler can know at once, and the failure is told.
func TestClientLeavesDuringTheHandler(t *testing.T) {
	for name, visit := range leavingClients {
		for _, writes := range []int{0, 256} {
			t.Run(fmt.Sprintf("%s, %d writes", name, writes), func(t *testing.T) {
				t.Parallel()
				logs := &logBook{}
				h := newWatchedHandler(writes)
				s := &catamount.Server{Handler: h, Logger: slog.New(logs)}
				addr := serve(t, s)
				left := visit(t, addr)
				waitFor(t, h.entered)
				// A few hundred microseconds, less than nothing where the client took
				// its time to end. The bound is for a machine that is busy.
				if lag := waitFor(t, h.cancelled).Sub(left); lag > 5*time.Second {
					t.Errorf("the context ended %v after the client had left", lag)
				} else {
					t.Logf("the context ended %v after the client had left", lag)
				}
				if stats := s.Stats(); stats.Gone != 1 || stats.BytesOut != 0 || stats.BusyThreads != 1 {
					t.Errorf("while the handler runs: %d gone, %d bytes sent, %d busy", stats.Gone, stats.BytesOut, stats.BusyThreads)
				}
				close(h.release)
				err := waitFor(t, h.written)
				noConnections(t, s)
				stats := s.Stats()
				if stats.Gone != 1 || stats.BytesOut == 0 {
					t.Errorf("%d gone, %d bytes sent, want the answer attempted", stats.Gone, stats.BytesOut)
				}
				if writes == 0 {
					// The kernel takes the first bytes for a client that has only said
					// that it will send no more, as a half-closed one does.
					if err != nil || len(stats.WriteErrors) != 0 {
						t.Errorf("the first write: %v, counted %v", err, stats.WriteErrors)
					}
					return
				}
				if !isGone(err) || len(stats.WriteErrors) != 1 || stats.WriteErrors[causeOf(err)] != 1 {
					t.Errorf("write: %v, counted %v", err, stats.WriteErrors)
				}
				t.Log(logs.only(t, s, "response not delivered", map[string]string{
					"method": "GET", "path": "/report", "status": "200", "total": "unknown", "cause": causeOf(err), "err": err.Error(),
				}))
			})
		}
	}
}

// A client that only shuts down its sending side looks the same at first; it
// gets its answer, all of it.
func TestHalfClosedClientGetsItsWholeAnswer(t *testing.T) {
	for _, writes := range []int{0, 256} {
		t.Run(fmt.Sprintf("%d writes", writes), func(t *testing.T) {
			logs := &logBook{}
			h := newWatchedHandler(writes)
			s := &catamount.Server{Handler: h, Logger: slog.New(logs)}
			conn := dial(t, "tcp", serve(t, s)).(*net.TCPConn)
			if _, err := io.WriteString(conn, get11); err != nil {
				t.Fatal(err)
			}
			waitFor(t, h.entered)
			_ = conn.CloseWrite()
			waitFor(t, h.cancelled)
			close(h.release)
			answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(io.Discard, answer.Body)
			if want := max(int64(writes)*64<<10, int64(len("Completed"))); err != nil || n != want {
				t.Errorf("read %d bytes of %d: %v", n, want, err)
			}
			if err := waitFor(t, h.written); err != nil {
				t.Errorf("write: %v", err)
			}
			noConnections(t, s)
			if stats := s.Stats(); stats.Gone != 1 || len(stats.WriteErrors) != 0 {
				t.Errorf("%d gone, failed writes %v", stats.Gone, stats.WriteErrors)
			}
			end(t, s)
			logs.only(t, s, "client closed before its answer was sent", map[string]string{"path": "/", "status": "200"})
		})
	}
}

// How Puma works: what is not whole waits in the reactor and occupies nobody,
// the pool gets whole requests, large bodies lie in a file without a name.
func TestPathOfASlowRequest(t *testing.T) {
	directory := t.TempDir()
	body := bytes.Repeat([]byte("0123456789"), 10_000)
	entered, release := make(chan int, 1), make(chan struct{})
	s := &catamount.Server{
		MaxThreads: 1, BodyMemory: 1000, BodyMemoryTotal: -1, BodyDirectory: directory,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				entered <- unnamedFiles(t, directory)
				waitFor(t, release)
				if got, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(got, body) {
					t.Errorf("the body has %d bytes: %v", len(got), err)
				}
			}
			hello(w, r)
		}),
	}
	addr := serve(t, s)
	conn := dial(t, "tcp", addr)
	send := func(part string) {
		t.Helper()
		if _, err := io.WriteString(conn, part); err != nil {
			t.Fatal(err)
		}
	}
	// waits: the slow client is in the reactor, and the only place is free.
	waits := func(state string, files int) {
		t.Helper()
		until(t, "the client is in the reactor, state "+state, func() bool { return s.Stats().Connections[state] == 1 })
		if stats := s.Stats(); stats.BusyThreads != 0 || stats.PoolCapacity != 1 {
			t.Errorf("state %s: %d busy, capacity %d", state, stats.BusyThreads, stats.PoolCapacity)
		}
		if n := unnamedFiles(t, directory); n != files {
			t.Errorf("state %s: %d files, want %d", state, n, files)
		}
		if answer := talk(t, dial(t, "tcp", addr), "GET / HTTP/1.0\r\n\r\n"); !strings.HasSuffix(answer, "Hello, World!") {
			t.Errorf("state %s: another client gets %q", state, answer)
		}
		until(t, "the other client has left", func() bool { return connections(s.Stats()) == 1 })
	}
	head := withLength(fmt.Sprint(len(body)))
	send(head[:20])
	waits("head", 0)
	send(head[20:])
	waits("body", 0)
	send(string(body[:len(body)/2]))
	until(t, "half of the body has come", func() bool { return s.Stats().BytesIn >= uint64(len(head)+len(body)/2) })
	waits("body", 1)
	send(string(body[len(body)/2:]))
	if n := waitFor(t, entered); n != 1 {
		t.Errorf("while the handler runs there are %d files", n)
	}
	if stats := s.Stats(); stats.BusyThreads != 1 || stats.Connections["queued"] != 1 {
		t.Errorf("while the handler runs: %d busy, connections %v", stats.BusyThreads, stats.Connections)
	}
	close(release)
	_ = conn.(*net.TCPConn).CloseWrite()
	if answer := talk(t, conn, ""); !strings.HasSuffix(answer, "Hello, World!") {
		t.Errorf("answer %q", answer)
	}
	if n := unnamedFiles(t, directory); n != 0 {
		t.Errorf("%d files are left", n)
	}
}

// unnamedFiles counts the open files of a directory and makes sure that none of
// them can be seen in there.
func unnamedFiles(t *testing.T, directory string) (n int) {
	if entries, err := os.ReadDir(directory); err != nil || len(entries) > 0 {
		t.Errorf("in the directory: %v, %v", entries, err)
	}
	for _, target := range openDescriptors() {
		if strings.HasPrefix(target, directory+"/") && strings.HasSuffix(target, "(deleted)") {
			n++
		}
	}
	return n
}

// A request that stops half-way is answered with 408 and told in the log,
// whichever half it is.
func TestStalledRequests(t *testing.T) {
	for phase, input := range map[string]string{"head": "GET /stalled HTTP/1.1\r\nHos", "body": withLength("10") + "12345"} {
		t.Run(phase, func(t *testing.T) {
			t.Parallel()
			logs := &logBook{}
			s := &catamount.Server{
				Handler: http.HandlerFunc(hello), Logger: slog.New(logs),
				ReadHeaderTimeout: 300 * time.Millisecond, BodyIdleTimeout: 300 * time.Millisecond,
			}
			answer := talk(t, dial(t, "tcp", serve(t, s)), input)
			if got := describeAnswers(answer, nil); !slices.Equal(got, []string{"408 close"}) {
				t.Errorf("answers %q", got)
			}
			if stats := s.Stats(); stats.Timeouts[phase] != 1 || stats.RequestsCount != 0 {
				t.Errorf("408s %v, %d requests begun", stats.Timeouts, stats.RequestsCount)
			}
			came := map[string]string{"head": fmt.Sprint(len(input)), "body": "5"}[phase]
			t.Log(logs.only(t, s, "request timed out (408)", map[string]string{"phase": phase, "bytes": came}))
		})
	}
}
