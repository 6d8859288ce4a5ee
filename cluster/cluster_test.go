package cluster

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/catamount-server/catamount/internal/page"
)

// patience is how long real processes may take on a busy machine.
const patience = 20 * time.Second

func dialer(addr net.Addr) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, addr.Network(), addr.String())
	}
}

// logBook is a log that can be waited for.
type logBook struct {
	mu    sync.Mutex
	text  bytes.Buffer
	grown chan struct{} // closed with each line
}

func newLogBook() *logBook { return &logBook{grown: make(chan struct{})} }

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.grown)
	b.grown = make(chan struct{})
	return b.text.Write(p)
}

func (b *logBook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// await waits until so many lines have all the words.
func (b *logBook) await(t *testing.T, n int, words ...string) {
	t.Helper()
	timeout := time.After(patience)
	for {
		b.mu.Lock()
		grown, found := b.grown, 0
	line:
		for line := range strings.Lines(b.text.String()) {
			for _, word := range words {
				if !strings.Contains(line, word) {
					continue line
				}
			}
			found++
		}
		b.mu.Unlock()
		if found >= n {
			return
		}
		select {
		case <-grown:
		case <-timeout:
			t.Fatalf("%d of %d lines with %q; the log:\n%s", found, n, words, b)
		}
	}
}

// lines counts the lines with a word.
func (b *logBook) lines(word string) (n int) {
	for line := range strings.Lines(b.String()) {
		if strings.Contains(line, word) {
			n++
		}
	}
	return n
}

// testOptions are for real processes in a directory.
func testOptions(t *testing.T, dir string) Options {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Workers: 2, Binds: []Bind{TCPBind("127.0.0.1", "0")},
		Path: program, Argv: []string{"catatest"}, Directory: dir,
		StatsLayout:   page.Layout{StatsBytes: 64, Fingerprint: 1},
		CheckInterval: 100 * time.Millisecond, WorkerTimeout: 30 * time.Second, ShutdownTimeout: 10 * time.Second,
	}
}

// running is a cluster that runs in this process, with real workers.
type running struct {
	*Cluster
	t     *testing.T
	log   *logBook
	ended chan error
}

// run starts a cluster, which is stopped at the end of the test.
func run(t *testing.T, o Options) *running {
	t.Helper()
	r := &running{t: t, log: newLogBook(), ended: make(chan error, 1)}
	o.Logger = slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if r.Cluster, err = New(o); err != nil {
		t.Fatal(err)
	}
	go func() { r.ended <- r.Run(t.Context()) }()
	t.Cleanup(func() {
		_ = r.Stop()
		<-r.done
		if t.Failed() {
			t.Logf("the log:\n%s", r.log)
		}
	})
	return r
}

// stop stops it and returns what Run has returned.
func (r *running) stop() error {
	r.t.Helper()
	_ = r.Stop()
	return r.wait()
}

func (r *running) wait() error {
	r.t.Helper()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(patience):
		r.t.Fatalf("the cluster does not end; its log:\n%s", r.log)
		return nil
	}
}

func (r *running) stats() Stats {
	r.t.Helper()
	s, err := r.Stats()
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func TestBootAndStop(t *testing.T) {
	r := run(t, testOptions(t, release(t, "")))
	r.log.await(t, 1, "all workers booted", "workers=2")
	text, err := get(r.Addrs()[0])
	if err != nil || !strings.HasPrefix(text, "worker ") {
		t.Fatalf("got %q, %v", text, err)
	}
	s := r.stats()
	if s.BootedWorkers != 2 || s.Workers != 2 || s.Phase != 0 || s.Counts.Started != 2 {
		t.Errorf("stats: %+v", s)
	}
	addr := r.Addrs()[0]
	if err := r.stop(); err != nil {
		t.Errorf("Run returned %v", err)
	}
	if n := r.log.lines("worker stopped"); n != 2 {
		t.Errorf("%d workers stopped, want 2; the log:\n%s", n, r.log)
	}
	if conn, err := net.Dial(addr.Network(), addr.String()); err == nil {
		conn.Close()
		t.Error("somebody still listens")
	}
	if err := r.PhasedRestart(); err == nil {
		t.Error("a phased restart of a cluster that has ended gives no error")
	}
}

func TestRespawn(t *testing.T) {
	r := run(t, testOptions(t, release(t, "")))
	r.log.await(t, 1, "all workers booted")
	victim := r.stats().WorkerStatus[0]
	killed := time.Now()
	if err := kill(victim.PID); err != nil {
		t.Fatal(err)
	}
	r.log.await(t, 3, "worker booted")
	t.Logf("replaced after %s", time.Since(killed))
	r.log.await(t, 1, "the worker is dead", fmt.Sprint("pid=", victim.PID), "killed by SIGKILL")
	s := r.stats()
	if s.BootedWorkers != 2 || s.Counts.Crashed != 1 {
		t.Errorf("stats: %+v", s)
	}
}
