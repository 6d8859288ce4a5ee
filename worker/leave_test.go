package worker

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/catamount-server/catamount/internal/page"
)

// command tells a worker to leave as its master would.
func (w *workerProcess) command(slot *page.Slot, c page.Command) {
	w.t.Helper()
	slot.State.Store(uint32(page.Draining))
	slot.Deadline.Store(page.Now() + int64(patience))
	slot.Command.Store(uint32(c))
	w.signal(syscall.SIGTERM)
}

// Clients that keep their connections, post and never try again do not notice
// that every worker is replaced, again and again.
func TestReplacedWorkersLoseNothing(t *testing.T) {
	const clients, rounds = 24, 6
	m := newTestMaster(t, 3)
	workers := []*workerProcess{m.start(0, nil), m.start(1, nil)}
	for _, w := range workers {
		w.until(KindBoot)
	}
	stop := make(chan struct{})
	var group sync.WaitGroup
	for i := range clients {
		group.Go(func() {
			conn, err := net.Dial("tcp", m.addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			reader := bufio.NewReader(conn)
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				_ = conn.SetDeadline(time.Now().Add(patience))
				body := fmt.Sprintf("client %d, request %d", i, n)
				if _, err := io.WriteString(conn, request("/?sleep=1ms", body)); err != nil {
					t.Errorf("%s: %v", body, err)
					return
				}
				r, err := http.ReadResponse(reader, nil)
				if err != nil {
					t.Errorf("%s: %v", body, err)
					return
				}
				answer, err := io.ReadAll(r.Body)
				if err != nil || r.Close || !bytes.HasSuffix(answer, []byte(body)) {
					t.Errorf("%s: %q, %v, close %t", body, answer, err, r.Close)
					return
				}
			}
		})
	}
	// As a phased restart does: the new worker serves before the old one leaves.
	free := 2
	for range rounds {
		for i, old := range workers {
			index := old.index
			next := m.start(free, nil)
			next.until(KindBoot)
			old.command(m.page.Slot(index), page.HandOver)
			if kinds := old.exits(0); !slices.Contains(kinds, KindTerm) || slices.Contains(kinds, KindExternalTerm) {
				t.Errorf("messages at the end: %q", kinds)
			}
			m.page.Slot(index).Reset()
			workers[i], free = next, index
		}
	}
	close(stop)
	group.Wait()
	sum := Add(Add(ReadStats(m.page.Slot(0)), ReadStats(m.page.Slot(1))), ReadStats(m.page.Slot(2)))
	t.Logf("%d requests, %d workers replaced, %d connections accepted, %d handed over", sum.RequestsCount, rounds*len(workers), sum.Accepted, sum.HandedOver)
	if sum.Accepted != clients || sum.HandedOver == 0 {
		t.Errorf("%d connections for %d clients, %d handed over", sum.Accepted, clients, sum.HandedOver)
	}
	if sum.Statuses["2xx"] != sum.RequestsCount || len(sum.QueueWait) != waitBuckets {
		t.Errorf("%d requests, answers %v", sum.RequestsCount, sum.Statuses)
	}
}

// A worker that is told to finish serves what is here, and says so.
func TestFinish(t *testing.T) {
	m := newTestMaster(t, 1)
	w := m.start(0, nil)
	w.until(KindBoot)
	busy, idle := dialTCP(t, m.addr), dialTCP(t, m.addr)
	idle.send(request("/a", "x"))
	idle.answered(t, false)
	busy.send(request("/?sleep=200ms", "x"))
	awaitBusy(t, m.page.Slot(0), 1)
	late := dialTCP(t, m.addr) // it has connected, and nothing more
	w.command(m.page.Slot(0), page.Finish)
	if _, err := idle.reader.ReadByte(); err != io.EOF {
		t.Errorf("reading from an idle connection: %v, want its end", err)
	}
	late.send(request("/a", "x"))
	busy.answered(t, true)
	late.answered(t, true)
	for _, c := range []*client{busy, idle, late} {
		c.Close()
	}
	w.exits(0)
}

// answered reads an answer, which announces the close or not.
func (c *client) answered(t *testing.T, last bool) {
	t.Helper()
	r, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		t.Errorf("reading an answer: %v", err)
		return
	}
	_, _ = io.Copy(io.Discard, r.Body)
	if r.StatusCode != 200 || r.Close != last {
		t.Errorf("answer %s, close %t; want 200 and %t", r.Status, r.Close, last)
	}
}

// When the master is about to stop answers say so, though connections are still
// accepted.
func TestStoppingIsAnnounced(t *testing.T) {
	g := startTeam(t, 1, nil)
	client := dialTCP(t, g.master.addr)
	client.send(request("/a", "x"))
	client.answered(t, false)
	g.page.Global().Stopping.Store(1)
	client.send(request("/a", "x"))
	client.answered(t, true)
	client = dialTCP(t, g.master.addr)
	client.send(request("/a", "x"))
	client.answered(t, true)
}

// The port is free for another master as soon as this one has gone, and what
// runs is finished.
func TestOrphan(t *testing.T) {
	m := newTestMaster(t, 1)
	w := m.start(0, nil)
	w.until(KindBoot)
	client := dialTCP(t, m.addr)
	client.send(request("/?sleep=300ms", "x"))
	awaitBusy(t, m.page.Slot(0), 1)
	syscall.Close(m.listener) // with the master
	m.listener = -1
	w.check.Close()
	for deadline := time.Now().Add(patience); ; {
		l, err := net.Listen("tcp", m.addr)
		if err == nil {
			l.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the port is not free: %v", err)
		}
	}
	if m.page.Slot(0).Busy.Load() == 0 {
		t.Error("the port was free only when the request was done")
	}
	client.answered(t, true)
	client.Close()
	w.exits(0)
}

// leaveWith runs a departure in this process.
func (g *team) departs(o ServeOptions, terminate chan os.Signal, changes ...func(*departure)) chan error {
	ts := g.list[0]
	done := make(chan error, 1)
	pipe, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { pipe.Close() })
	if o.Logger == nil {
		o.Logger = ts.options.Logger
	}
	link := &Link{inheritance: Inheritance{HandOver: g.master.pair}, pipe: pipe, page: g.page, slot: g.page.Slot(0), masterGone: make(chan struct{})}
	d := &departure{link: link, server: ts.Server, options: &o, terminate: terminate}
	for _, change := range changes {
		change(d)
	}
	go func() { done <- d.run(causeTerm) }()
	return done
}

// Streams and connections that handlers have taken over have a grace, and are
// told.
func TestStreamGrace(t *testing.T) {
	hijacked := make(chan net.Conn, 1)
	release := make(chan struct{})
	g := startTeam(t, 1, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/stream":
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		case "/hijack":
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			hijacked <- conn
			<-release
		}
	})
	stream, taken := dialTCP(t, g.master.addr), dialTCP(t, g.master.addr)
	stream.send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
	taken.send("GET /hijack HTTP/1.1\r\nHost: x\r\n\r\n")
	defer waitFor(t, hijacked).Close()
	if r, err := http.ReadResponse(stream.reader, nil); err != nil || r.StatusCode != 200 {
		t.Fatalf("%v, %v", r, err)
	}
	told := make(chan context.Context, 1)
	began := time.Now()
	const grace = 200 * time.Millisecond
	g.page.Slot(0).Command.Store(uint32(page.Finish))
	shutdown := make(chan struct{})
	done := g.departs(ServeOptions{StreamGrace: grace, OnDrain: []func(context.Context){func(ctx context.Context) { told <- ctx }},
		BeforeShutdown: func() { close(shutdown) }}, nil)
	ctx := waitFor(t, told)
	waitFor(t, ctx.Done())
	if took := time.Since(began); took < grace {
		t.Errorf("the grace lasted %v", took)
	}
	stream.Close()
	if err := waitFor(t, done); err != nil {
		t.Error(err)
	}
	waitFor(t, shutdown)
	close(release)
	over, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := g.list[0].pool.Shutdown(over); err != nil { // it writes to the page, which goes with the test
		t.Error(err)
	}
}

// slowLog takes its time for each line, and counts them.
type slowLog struct {
	*logRecorder
	written atomic.Int32
}

func (l *slowLog) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l *slowLog) Handle(context.Context, slog.Record) error {
	<-time.After(patience / 200)
	l.written.Add(1)
	return nil
}

// A worker that ends though something is left writes its log to the end: what is
// in it may be why.
func TestGivingUpKeepsTheLog(t *testing.T) {
	running, release := make(chan struct{}), make(chan struct{})
	log := &slowLog{logRecorder: newLogRecorder()}
	g := startTeam(t, 1, func(http.ResponseWriter, *http.Request) {
		close(running)
		<-release
	}, func(o *Options) { o.Logger = slog.New(log) })
	busy := dialTCP(t, g.master.addr)
	busy.send(request("/a", "x"))
	waitFor(t, running)
	g.page.Slot(0).Command.Store(uint32(page.Finish))
	lines := []string{"one", "two", "three"}
	done := g.departs(ServeOptions{StreamGrace: time.Hour, OrphanGrace: time.Millisecond, Logger: slog.New(slog.DiscardHandler),
		BeforeShutdown: func() {
			for _, line := range lines {
				g.list[0].log.error(limitKey{event: line}, line)
			}
		}}, nil, func(d *departure) { close(d.link.masterGone) })
	if err := waitFor(t, done); err == nil {
		t.Error("no error, though a request was left")
	}
	if n := int(log.written.Load()); n < len(lines) {
		t.Errorf("%d of %d lines are written", n, len(lines))
	}
	close(release)
}

// A second SIGTERM skips every grace.
func TestSecondTerm(t *testing.T) {
	g := startTeam(t, 1, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	})
	stream, idle := dialTCP(t, g.master.addr), dialTCP(t, g.master.addr)
	idle.send(request("/a", "x"))
	idle.answered(t, false)
	stream.send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
	if r, err := http.ReadResponse(stream.reader, nil); err != nil || r.StatusCode != 200 {
		t.Fatalf("%v, %v", r, err)
	}
	g.page.Slot(0).Command.Store(uint32(page.HandOver)) // to whom?
	terminate := make(chan os.Signal, 1)
	done := g.departs(ServeOptions{StreamGrace: time.Hour}, terminate, func(d *departure) { d.termAt = time.Now().Add(-sameTerm) })
	terminate <- syscall.SIGTERM
	if _, err := idle.reader.ReadByte(); err != io.EOF {
		t.Errorf("reading from an idle connection: %v, want its end", err)
	}
	_, _ = io.Copy(io.Discard, stream)
	idle.Close()
	stream.Close()
	if err := waitFor(t, done); err != nil {
		t.Error(err)
	}
}

func TestTitle(t *testing.T) {
	m := newTestMaster(t, 3)
	w := m.start(2, func(i *Inheritance) { i.Phase = 7 })
	w.until(KindBoot)
	w.until(KindPing)
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", w.pid))
	if err != nil {
		t.Fatal(err)
	}
	if want := "worker 0/256"; !strings.HasPrefix(string(line), want) {
		t.Errorf("title %q, want %q", line, want)
	}
	if name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", w.pid)); string(name) != "worker 2\n" {
		t.Errorf("command %q", name)
	}
}

// What a worker serves can be read when it is dead.
func TestRequestsOfTheDead(t *testing.T) {
	m := newTestMaster(t, 1)
	w := m.start(0, nil)
	w.until(KindBoot)
	client := dialTCP(t, m.addr)
	client.send(request("/done", "x"))
	client.answered(t, false)
	client.send(request("/what/it/did?sleep=10s&password=x", "x"))
	awaitBusy(t, m.page.Slot(0), 1)
	w.untilText(func() bool { return len(m.page.Slot(0).Requests()) == 1 })
	w.signal(syscall.SIGKILL)
	waitFor(t, w.ended)
	requests := m.page.Slot(0).Requests()
	if len(requests) != 1 || requests[0].Text != "POST /what/it/did" {
		t.Errorf("requests %v", requests)
	}
}

func (w *workerProcess) untilText(holds func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !holds(); {
		if time.Now().After(deadline) {
			w.t.Fatal("never")
		}
	}
}

// Who waits in the kernel's queue when the server ends is served, however many
// they are: also where one accept takes only some, nobody has a place for them,
// or the gate is shut.
func TestFinishTakesTheWholeQueue(t *testing.T) {
	const clients = 3 * acceptBatchSize
	for _, queues := range []bool{true, false} {
		t.Run(fmt.Sprintf("QueueRequests %t", queues), func(t *testing.T) {
			running, release := make(chan struct{}), make(chan struct{})
			g := startTeam(t, 1, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/first" {
					close(running)
					<-release
				}
			}, func(o *Options) { o.QueueRequests, o.MaxThreads = queues, 1 })
			first := dialTCP(t, g.master.addr)
			first.send(request("/first", "x"))
			waitFor(t, running)
			g.only(-1) // nobody is accepted
			var waiting []*client
			for range clients {
				c := dialTCP(t, g.master.addr)
				c.send(request("/a", "x"))
				waiting = append(waiting, c)
			}
			g.page.Slot(0).Command.Store(uint32(page.Finish))
			done := g.departs(ServeOptions{StreamGrace: time.Hour}, nil)
			waitFor(t, g.list[0].drainBegun)
			syscall.Close(g.master.listener) // as the master does
			g.master.listener = -1
			close(release)
			for _, c := range append(waiting, first) {
				if c.answered(t, true); t.Failed() {
					return
				}
				c.Close()
			}
			if err := waitFor(t, done); err != nil {
				t.Error(err)
			}
		})
	}
}

// The server stops while a worker waits for siblings to take its connections:
// there will be none. Clients are let go at once, with their answer or without.
func TestStopEndsHandOver(t *testing.T) {
	running, release := make(chan struct{}), make(chan struct{})
	g := startTeam(t, 1, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/busy" {
			close(running)
			<-release
		}
	})
	idle, busy := dialTCP(t, g.master.addr), dialTCP(t, g.master.addr)
	idle.send(request("/a", "x"))
	idle.answered(t, false)
	busy.send(request("/busy", "x"))
	waitFor(t, running)
	done := g.departs(ServeOptions{StreamGrace: time.Hour}, nil) // told by somebody else
	waitFor(t, g.list[0].drainBegun)
	g.page.Global().Stopping.Store(1)
	g.page.Slot(0).Command.Store(uint32(page.Finish))
	_ = idle.SetDeadline(time.Now().Add(handOverPatience / 2))
	if _, err := idle.reader.ReadByte(); err != io.EOF {
		t.Errorf("reading from an idle connection: %v, want its end", err)
	}
	close(release)
	busy.answered(t, true)
	idle.Close()
	busy.Close()
	if err := waitFor(t, done); err != nil {
		t.Error(err)
	}
}

// Somebody sends a TERM to the master and to its workers: the workers get two.
// That is no hurry, in whichever order they come.
func TestTermOfTheWholeGroup(t *testing.T) {
	for _, first := range []page.Command{page.NoCommand, page.Finish} {
		t.Run(fmt.Sprintf("command %d when the first comes", first), func(t *testing.T) {
			release := make(chan struct{})
			g := startTeam(t, 1, func(w http.ResponseWriter, r *http.Request) {
				_ = http.NewResponseController(w).Flush()
				<-release
				if r.Context().Err() != nil {
					return
				}
				_, _ = io.WriteString(w, "whole")
			})
			stream := dialTCP(t, g.master.addr)
			stream.send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
			r, err := http.ReadResponse(stream.reader, nil)
			if err != nil {
				t.Fatal(err)
			}
			g.page.Slot(0).Command.Store(uint32(first))
			terminate := make(chan os.Signal) // who sends knows that it was taken
			done := g.departs(ServeOptions{StreamGrace: time.Hour}, terminate, func(d *departure) { d.termAt = time.Now().Add(time.Hour) })
			waitFor(t, g.list[0].drainBegun)
			g.page.Slot(0).Command.Store(uint32(page.Finish))
			for range 3 {
				terminate <- syscall.SIGTERM
			}
			close(release)
			if body, err := io.ReadAll(r.Body); err != nil || string(body) != "whole" {
				t.Errorf("the stream has brought %q, %v", body, err)
			}
			stream.Close()
			if err := waitFor(t, done); err != nil {
				t.Error(err)
			}
		})
	}
}
