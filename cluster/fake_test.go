package cluster

import (
	"context"
	"io"
	"log/slog"
	"math"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/catamount-server/catamount/internal/page"
	"github.com/catamount-server/catamount/worker"
)

// fakeSystem is an operating system whose processes are entries in a map: what
// happens to workers, and when, is told line by line, on the clock of a bubble.
type fakeSystem struct {
	t  *testing.T
	mu sync.Mutex
	// processes by pid.
	processes map[int]*fakeProcess
	next      int
	children  chan<- os.Signal
	signals   chan<- os.Signal
	oomKills  uint64
	memory    map[int]int64
	orphans   []int
	// starting is called with each process that is started.
	starting func(*fakeProcess)
}

type fakeProcess struct {
	process
	system *fakeSystem
	pid    int
	pipe   *io.PipeWriter
	gone   chan struct{} // closed with its end
	dead   bool
	reaped bool
	status syscall.WaitStatus
	got    []syscall.Signal
	at     time.Time
	// signalled is called with each signal but KILL.
	signalled func(syscall.Signal)
}

func (s *fakeSystem) env() env {
	return env{
		start: s.start, kill: s.kill, wait: s.wait, dead: s.findDead, reaper: true,
		exec: func(string, []string, []string) error { return syscall.ENOENT },
		notify: func(c chan<- os.Signal, signals ...os.Signal) {
			if signals[0] == childSignal {
				s.children = c
			} else {
				s.signals = c
			}
		},
		forget:          func(chan<- os.Signal) {},
		privateMemory:   func(pid int) int64 { return s.memory[pid] },
		killedForMemory: func() uint64 { return s.oomKills },
		limits:          func() limits { return limits{cpus: 4, memory: math.MaxInt64} },
	}
}

func (s *fakeSystem) start(p process) (child, error) {
	s.mu.Lock()
	s.next++
	read, write := io.Pipe()
	f := &fakeProcess{process: p, system: s, pid: 100 + s.next, pipe: write, gone: make(chan struct{}), at: time.Now()}
	s.processes[f.pid] = f
	s.mu.Unlock()
	if s.starting != nil {
		go s.starting(f)
	}
	return child{pid: f.pid, messages: read, pipe: -1, check: -1}, nil
}

func (s *fakeSystem) kill(pid int, signal syscall.Signal) error {
	s.mu.Lock()
	p := s.processes[pid]
	s.mu.Unlock()
	if p == nil || p.reaped {
		return syscall.ESRCH
	}
	p.got = append(p.got, signal)
	if signal == syscall.SIGKILL {
		go p.end(syscall.WaitStatus(syscall.SIGKILL))
	} else if p.signalled != nil {
		go p.signalled(signal)
	}
	return nil
}

func (s *fakeSystem) wait(pid int) (syscall.WaitStatus, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, orphan := range s.orphans {
		if orphan == pid {
			s.orphans = append(s.orphans[:i], s.orphans[i+1:]...)
			return 0, true, nil
		}
	}
	p := s.processes[pid]
	if p == nil || p.reaped {
		return 0, true, syscall.ECHILD
	}
	p.reaped = p.dead
	return p.status, p.dead, nil
}

func (s *fakeSystem) findDead() (int, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for pid, p := range s.processes {
		if p.dead && !p.reaped {
			return pid, true
		}
	}
	if len(s.orphans) > 0 {
		return s.orphans[0], true
	}
	return 0, false
}

func (p *fakeProcess) say(kind worker.Kind, value int, text string) {
	_, _ = p.pipe.Write(worker.Message{Kind: kind, PID: p.pid, Value: value, Text: text}.Append(nil))
}

// boot says what a worker says that boots.
func (p *fakeProcess) boot() {
	p.say(worker.KindHello, worker.Protocol, "")
	p.say(worker.KindBoot, p.inheritance.Index, "")
}

// end ends the process.
func (p *fakeProcess) end(status syscall.WaitStatus) {
	p.system.mu.Lock()
	if p.dead {
		p.system.mu.Unlock()
		return
	}
	p.dead, p.status = true, status
	p.system.mu.Unlock()
	close(p.gone)
	p.pipe.Close()
	select {
	case p.system.children <- childSignal:
	default:
	}
}

// exited is the status of an exit code.
func exited(code int) syscall.WaitStatus { return syscall.WaitStatus(code << 8) }

// obedient boots, gives signs of life, and leaves when it is told to.
func obedient(p *fakeProcess) {
	leave := make(chan struct{})
	p.signalled = func(s syscall.Signal) {
		if s == syscall.SIGTERM {
			close(leave)
		}
	}
	p.boot()
	for {
		select {
		case <-leave:
			p.say(worker.KindTerm, p.inheritance.Index, "")
			p.end(exited(0))
			return
		case <-p.gone:
			return
		case <-time.After(5 * time.Second):
			p.say(worker.KindPing, p.inheritance.Index, "")
		}
	}
}

// bubble runs a cluster on a fake system, in a bubble of fake time.
func bubble(t *testing.T, o Options, starting func(*fakeProcess), test func(*testing.T, *running, *fakeSystem)) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeSystem{t: t, processes: make(map[int]*fakeProcess), memory: make(map[int]int64), starting: starting}
		r := &running{t: t, log: newLogBook(), ended: make(chan error, 1)}
		o.Logger = slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		o.Directory = t.TempDir()
		o.Binds = []Bind{TCPBind("127.0.0.1", "0")}
		o.Path = "/proc/self/exe"
		o.StatsLayout = page.Layout{StatsBytes: 64, Fingerprint: 1}
		var err error
		if r.Cluster, err = newCluster(o, s.env()); err != nil {
			t.Fatal(err)
		}
		go func() { r.ended <- r.Run(context.Background()) }()
		defer func() {
			_ = r.Stop()
			<-r.done
			synctest.Wait()
			for _, p := range s.processes {
				if !p.dead {
					t.Errorf("process %d is left over", p.pid)
				}
			}
			if t.Failed() {
				t.Logf("the log:\n%s", r.log)
			}
		}()
		test(t, r, s)
	})
}

// of are the processes of a role that live.
func (s *fakeSystem) live() (live []*fakeProcess) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for pid := 101; pid <= 100+s.next; pid++ {
		if p := s.processes[pid]; p != nil && !p.dead {
			live = append(live, p)
		}
	}
	return live
}

func (r *running) expect(words ...string) {
	r.t.Helper()
	for line := range strings.Lines(r.log.String()) {
		found := true
		for _, word := range words {
			found = found && strings.Contains(line, word)
		}
		if found {
			return
		}
	}
	r.t.Errorf("no line with %q in the log", words)
}

func TestHungWorker(t *testing.T) {
	silent := func(p *fakeProcess) {
		if p.inheritance.Index == 1 && p.pid == 102 {
			p.boot() // and nothing more
			return
		}
		obedient(p)
	}
	bubble(t, Options{Workers: 2}, silent, func(t *testing.T, r *running, s *fakeSystem) {
		time.Sleep(59 * time.Second)
		synctest.Wait()
		hung := s.processes[102]
		slot := r.page().Slot(1)
		slot.Begin(3, "GET", "/slow?secret=1")
		if len(hung.got) > 0 {
			t.Fatalf("it got %v before its time", hung.got)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if len(hung.got) != 1 || hung.got[0] != syscall.SIGQUIT {
			t.Fatalf("it got %v, want a QUIT", hung.got)
		}
		r.expect("asked for its stacks", "no sign of life for 1m0s", "GET /slow")
		time.Sleep(3 * time.Second)
		if synctest.Wait(); hung.dead {
			t.Fatal("it was killed before it could print its stacks")
		}
		time.Sleep(2 * time.Second)
		if synctest.Wait(); !hung.dead {
			t.Fatal("it was not killed")
		}
		r.expect("the worker is dead", "worker=1", "killed by the master: no sign of life", "GET /slow")
		st := r.stats()
		if st.BootedWorkers != 2 || st.Counts.Killed != 1 || st.Counts.Crashed != 1 {
			t.Errorf("stats: %+v", st)
		}
		if len(slot.Requests()) != 0 {
			t.Error("the successor begins with its predecessor's requests")
		}
	})
}

// TestFrozenMaster: when nobody was running, nobody is killed for silence.
func TestFrozenMaster(t *testing.T) {
	silent := func(p *fakeProcess) {
		p.signalled = func(s syscall.Signal) {
			if s == syscall.SIGTERM {
				p.end(exited(0))
			}
		}
		p.boot()
	}
	bubble(t, Options{Workers: 3}, silent, func(t *testing.T, r *running, s *fakeSystem) {
		time.Sleep(30 * time.Second)
		// The master's goroutine sleeps, as if the machine did.
		if err := r.do(func() { time.Sleep(10 * time.Minute) }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		r.expect("the master itself was not running", "for=9m55s")
		for pid, p := range s.processes {
			if len(p.got) > 0 {
				t.Errorf("process %d got %v", pid, p.got)
			}
		}
	})
}

func TestBootTimeout(t *testing.T) {
	never := func(p *fakeProcess) { p.say(worker.KindHello, worker.Protocol, "") }
	bubble(t, Options{Workers: 1}, never, func(t *testing.T, r *running, s *fakeSystem) {
		time.Sleep(66 * time.Second)
		synctest.Wait()
		r.expect("it has not booted within 1m0s")
		select {
		case err := <-r.ended:
			if err == nil || !strings.Contains(err.Error(), "has not booted within") {
				t.Errorf("Run returned %v", err)
			}
		default:
			t.Error("the first worker cannot boot, and the server goes on")
		}
	})
}

func TestShutdownTimeout(t *testing.T) {
	stubborn := func(p *fakeProcess) { p.boot() }
	bubble(t, Options{Workers: 1, ShutdownDelay: 10 * time.Second}, stubborn, func(t *testing.T, r *running, s *fakeSystem) {
		synctest.Wait()
		begun := time.Now()
		s.signals <- syscall.SIGTERM
		time.Sleep(5 * time.Second)
		synctest.Wait()
		p, slot := s.processes[101], r.page().Slot(0)
		if len(p.got) > 0 || r.page().Global().Stopping.Load() != 1 {
			t.Fatalf("in the delay: it got %v, Stopping is %d", p.got, r.page().Global().Stopping.Load())
		}
		s.signals <- syscall.SIGINT // skips the delay
		synctest.Wait()
		if len(p.got) != 1 || p.got[0] != syscall.SIGTERM || page.Command(slot.Command.Load()) != page.Finish {
			t.Fatalf("it got %v, command %d", p.got, slot.Command.Load())
		}
		time.Sleep(30 * time.Second)
		if synctest.Wait(); len(p.got) != 2 || p.got[1] != syscall.SIGQUIT {
			t.Fatalf("it got %v, want a QUIT at its deadline", p.got)
		}
		if err := <-r.ended; err != nil {
			t.Errorf("Run returned %v", err)
		}
		if took := time.Since(begun); took != 36*time.Second {
			t.Errorf("it took %s", took)
		}
		r.expect("killed by the master: it does not leave in time")
	})
}

func TestExternalTerm(t *testing.T) {
	bubble(t, Options{Workers: 2}, obedient, func(t *testing.T, r *running, s *fakeSystem) {
		synctest.Wait()
		p := s.processes[101]
		p.say(worker.KindExternalTerm, 0, "")
		synctest.Wait()
		if n := len(s.live()); n != 3 {
			t.Errorf("%d processes; the successor should not wait", n)
		}
		p.signalled(syscall.SIGTERM)
		time.Sleep(time.Second)
		if st := r.stats(); st.BootedWorkers != 2 || st.Counts.Crashed != 0 || len(st.WorkerStatus) != 2 {
			t.Errorf("stats: %+v", st)
		}
	})
}

func TestKilledForMemory(t *testing.T) {
	bubble(t, Options{Workers: 2}, obedient, func(t *testing.T, r *running, s *fakeSystem) {
		synctest.Wait()
		s.oomKills = 1
		s.processes[101].end(syscall.WaitStatus(syscall.SIGKILL))
		synctest.Wait()
		r.expect("the worker is dead", "killed for memory")
		s.processes[102].end(syscall.WaitStatus(syscall.SIGKILL))
		synctest.Wait()
		r.expect("the worker is dead", "killed by SIGKILL")
	})
}

func TestRecycling(t *testing.T) {
	o := Options{Workers: 2, MaxRequests: 100, MaxMemory: 64 << 20}
	bubble(t, o, obedient, func(t *testing.T, r *running, s *fakeSystem) {
		synctest.Wait()
		for i := range 2 {
			r.page().Slot(i).Served.Store(111) // beyond all jitter
		}
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if st := r.stats(); st.Counts.Recycled != 2 || st.BootedWorkers != 2 || st.Counts.Started != 4 {
			t.Errorf("stats: %+v", st)
		}
		r.expect("the worker will be replaced", "it has served 111 requests")
		s.memory[103] = 100 << 20
		time.Sleep(6 * time.Second)
		synctest.Wait()
		r.expect("it has 100 MiB of its own")
		if st := r.stats(); st.Counts.Recycled != 3 || st.BootedWorkers != 2 {
			t.Errorf("stats: %+v", st)
		}
		for _, h := range r.handles {
			if h.maxRequests < 100 || h.maxRequests > 110 || h.maxMemory < 64<<20 || h.maxMemory > 71<<20 {
				t.Errorf("thresholds %d and %d", h.maxRequests, h.maxMemory)
			}
		}
	})
}

func TestScale(t *testing.T) {
	bubble(t, Options{Workers: 2, MaxWorkers: 6}, obedient, func(t *testing.T, r *running, s *fakeSystem) {
		for _, n := range []int{6, 1, 4} {
			if err := r.Scale(n); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if st := r.stats(); st.BootedWorkers != n || len(st.WorkerStatus) != n {
				t.Errorf("scaled to %d: %+v", n, st)
			}
			if live := r.page().Global().Live.Load(); int(live) != n {
				t.Errorf("the page says %d live workers, want %d", live, n)
			}
		}
		for range 5 {
			s.signals <- syscall.SIGTTIN
		}
		synctest.Wait()
		r.expect("the number of workers stays", "7 workers, want 1 to 6")
		for range 9 {
			s.signals <- syscall.SIGTTOU
		}
		time.Sleep(time.Second)
		if st := r.stats(); st.BootedWorkers != 1 || st.Counts.Crashed != 0 {
			t.Errorf("stats: %+v", st)
		}
		if err := r.Scale(0); err == nil {
			t.Error("no error for no workers")
		}
	})
}

// TestCrashLoop: a worker that dies as soon as it serves is started ever less
// often, and the others are left alone.
func TestCrashLoop(t *testing.T) {
	starts := 0
	var mu sync.Mutex
	crashing := func(p *fakeProcess) {
		if p.inheritance.Index == 1 {
			mu.Lock()
			starts++
			mu.Unlock()
			p.boot()
			p.end(syscall.WaitStatus(syscall.SIGSEGV))
			return
		}
		obedient(p)
	}
	bubble(t, Options{Workers: 3}, crashing, func(t *testing.T, r *running, s *fakeSystem) {
		count := func(after time.Duration) int {
			time.Sleep(after)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return starts
		}
		if n := count(10 * time.Second); n < 3 || n > 10 {
			t.Errorf("%d starts in the first 10 s", n)
		}
		before := count(50 * time.Second)
		if n := count(10*time.Minute) - before; n < 19 || n > 21 {
			t.Errorf("%d starts in ten minutes, want one each 30 s", n)
		}
		if st := r.stats(); st.BootedWorkers != 2 || st.Counts.Started != uint64(2+starts) {
			t.Errorf("stats: %+v", st)
		}
	})
}

func TestClosedPipe(t *testing.T) {
	bubble(t, Options{Workers: 2}, obedient, func(t *testing.T, r *running, s *fakeSystem) {
		synctest.Wait()
		p := s.processes[101]
		p.pipe.Close()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !p.dead || p.got[0] != syscall.SIGKILL {
			t.Errorf("dead: %t, got %v", p.dead, p.got)
		}
		r.expect("it has closed its pipe and lives on")
	})
}

func TestNonsense(t *testing.T) {
	bubble(t, Options{Workers: 2}, obedient, func(t *testing.T, r *running, s *fakeSystem) {
		synctest.Wait()
		p := s.processes[101]
		_, _ = p.pipe.Write([]byte("zz\x01\n" + strings.Repeat("x", 3*longestLine) + "\n"))
		_, _ = p.pipe.Write([]byte("p999:0\n")) // of somebody else
		synctest.Wait()
		r.expect("what is no message")
		if p.dead {
			t.Fatal("a little nonsense is ignored")
		}
		for range mostNonsense {
			_, _ = p.pipe.Write([]byte("?\n"))
		}
		synctest.Wait()
		if !p.dead {
			t.Error("it was not killed")
		}
		if st := r.stats(); st.BootedWorkers != 2 {
			t.Errorf("stats: %+v", st)
		}
	})
}

func TestOrphans(t *testing.T) {
	bubble(t, Options{Workers: 1}, obedient, func(t *testing.T, r *running, s *fakeSystem) {
		synctest.Wait()
		s.mu.Lock()
		s.orphans = []int{7001, 7002}
		s.mu.Unlock()
		s.children <- childSignal
		synctest.Wait()
		if len(s.orphans) != 2 {
			t.Error("who waits for them has no time to")
		}
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if len(s.orphans) != 0 {
			t.Errorf("%v are not reaped", s.orphans)
		}
		if st := r.stats(); st.Counts.Orphans != 2 || st.BootedWorkers != 1 {
			t.Errorf("stats: %+v", st)
		}
	})
}
