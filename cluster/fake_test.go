package cluster

import (
	"context"
	"io"
	"log/slog"
	"math"
	"os"
	"slices"
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
	// killing is called with each signal, on the goroutine that sends it.
	killing func(pid int, signal syscall.Signal)
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
		hold:            func() func() { return func() {} },
		allow:           func() {},
		privateMemory:   func(pid int) (n int64) { s.locked(func() { n = s.memory[pid] }); return n },
		killedForMemory: func() (n uint64) { s.locked(func() { n = s.oomKills }); return n },
		limits:          func() limits { return limits{cpus: 4, memory: math.MaxInt64} },
	}
}

func (s *fakeSystem) locked(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// signals are those that the process with a pid has got.
func (s *fakeSystem) got(pid int) (got []syscall.Signal) {
	s.locked(func() { got = slices.Clone(s.processes[pid].got) })
	return got
}

func (s *fakeSystem) dead(pid int) (dead bool) {
	s.locked(func() { dead = s.processes[pid].dead })
	return dead
}

func (s *fakeSystem) process(pid int) (p *fakeProcess) {
	s.locked(func() { p = s.processes[pid] })
	return p
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
	if s.killing != nil {
		s.killing(pid, signal)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.processes[pid]
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
		r.shared = r.page()
		go func() { r.ended <- r.Run(context.Background()) }()
		defer func() {
			_ = r.Stop()
			<-r.done
			synctest.Wait()
			for _, p := range s.live() {
				t.Errorf("process %d is left over", p.pid)
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
