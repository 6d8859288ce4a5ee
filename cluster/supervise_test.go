package cluster

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/catamount-server/catamount/internal/page"
	"github.com/catamount-server/catamount/worker"
)

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
		slot := r.shared.Slot(1)
		slot.Begin(3, "GET", "/slow?secret=1")
		if got := s.got(102); len(got) > 0 {
			t.Fatalf("it got %v before its time", got)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := s.got(102); !slices.Equal(got, []syscall.Signal{syscall.SIGQUIT}) {
			t.Fatalf("it got %v, want a QUIT", got)
		}
		r.expect("asked for its stacks", "no sign of life for 1m0s", "GET /slow")
		time.Sleep(3 * time.Second)
		if synctest.Wait(); s.dead(102) {
			t.Fatal("it was killed before it could print its stacks")
		}
		time.Sleep(2 * time.Second)
		if synctest.Wait(); !s.dead(102) {
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
		for pid := 101; pid <= 103; pid++ {
			if got := s.got(pid); len(got) > 0 {
				t.Errorf("process %d got %v", pid, got)
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
		slot := r.shared.Slot(0)
		if len(s.got(101)) > 0 || r.shared.Global().Stopping.Load() != 1 {
			t.Fatalf("in the delay: it got %v, Stopping is %d", s.got(101), r.shared.Global().Stopping.Load())
		}
		s.signals <- syscall.SIGINT // skips the delay
		synctest.Wait()
		if got := s.got(101); !slices.Equal(got, []syscall.Signal{syscall.SIGTERM}) || page.Command(slot.Command.Load()) != page.Finish {
			t.Fatalf("it got %v, command %d", got, slot.Command.Load())
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if got := s.got(101); len(got) != 2 || got[1] != syscall.SIGQUIT {
			t.Fatalf("it got %v, want a QUIT at its deadline", got)
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
		p := s.process(101)
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
		s.locked(func() { s.oomKills = 1 })
		s.process(101).end(syscall.WaitStatus(syscall.SIGKILL))
		synctest.Wait()
		r.expect("the worker is dead", "killed for memory")
		s.process(102).end(syscall.WaitStatus(syscall.SIGKILL))
		synctest.Wait()
		r.expect("the worker is dead", "killed by SIGKILL")
	})
}

func TestRecycling(t *testing.T) {
	o := Options{Workers: 2, MaxRequests: 100, MaxMemory: 64 << 20}
	bubble(t, o, obedient, func(t *testing.T, r *running, s *fakeSystem) {
		synctest.Wait()
		for i := range 2 {
			r.shared.Slot(i).Served.Store(111) // beyond all jitter
		}
		time.Sleep(12 * time.Second)
		synctest.Wait()
		if st := r.stats(); st.Counts.Recycled != 2 || st.BootedWorkers != 2 || st.Counts.Started != 4 {
			t.Errorf("stats: %+v", st)
		}
		r.expect("the worker will be replaced", "it has served 111 requests")
		s.locked(func() { s.memory[103] = 100 << 20 })
		time.Sleep(12 * time.Second)
		synctest.Wait()
		r.expect("it has 100 MiB of its own")
		if st := r.stats(); st.Counts.Recycled != 3 || st.BootedWorkers != 2 {
			t.Errorf("stats: %+v", st)
		}
		_ = r.do(func() {
			for _, h := range r.handles {
				if h.maxRequests < 100 || h.maxRequests > 110 || h.maxMemory < 64<<20 || h.maxMemory > 71<<20 {
					t.Errorf("thresholds %d and %d", h.maxRequests, h.maxMemory)
				}
			}
		})
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
			if live := r.shared.Global().Live.Load(); int(live) != n {
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

// TestDeserters: workers that leave of their own accord as soon as they have
// booted are not started without end.
func TestDeserters(t *testing.T) {
	starts := 0
	var mu sync.Mutex
	deserting := func(p *fakeProcess) {
		mu.Lock()
		starts++
		mu.Unlock()
		p.boot()
		p.say(worker.KindTerm, p.inheritance.Index, "")
		p.end(0)
	}
	bubble(t, Options{Workers: 2}, deserting, func(t *testing.T, r *running, s *fakeSystem) {
		time.Sleep(10 * time.Second)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if starts < 4 || starts > 2*2*10 { // each of two has twice as many slots
			t.Errorf("%d starts in the first 10 s", starts)
		}
	})
}

// restarts asks for a phased restart of two workers, the first one, which has to
// be over within a minute.
func (r *running) restarts(t *testing.T) {
	t.Helper()
	if err := r.PhasedRestart(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Minute)
	synctest.Wait()
	if st := r.stats(); st.Phase != 1 || st.BootedWorkers != 2 || st.OldWorkers != 0 || st.Restart != "none" {
		t.Errorf("a minute after the restart was asked for: %+v", st)
	}
	r.expect("phased restart complete")
}

// TestGivenUpRestartsAreForgotten: that programs could not boot which were given
// up keeps neither the next one waiting, nor who takes the place of a worker of
// the one that has gone on.
func TestGivenUpRestartsAreForgotten(t *testing.T) {
	starting := func(p *fakeProcess) {
		if phase := p.inheritance.Phase; 0 < phase && phase < 5 {
			p.say(worker.KindHello, worker.Protocol, "")
			p.end(exited(exitBoot))
			return
		}
		obedient(p)
	}
	bubble(t, Options{Workers: 2}, starting, func(t *testing.T, r *running, s *fakeSystem) {
		restart := func() {
			t.Helper()
			if err := r.PhasedRestart(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if st := r.stats(); st.Restart != "none" || st.BootedWorkers != 2 {
				t.Errorf("a second after the restart was asked for: %+v", st)
			}
		}
		synctest.Wait()
		for range 4 {
			restart()
		}
		s.process(101).end(syscall.WaitStatus(syscall.SIGKILL))
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if st := r.stats(); st.BootedWorkers != 2 {
			t.Errorf("a worker was killed: %+v", st)
		}
		restart()
		if st := r.stats(); st.Phase != 5 || st.OldWorkers != 0 || st.Counts.FailedRestarts != 4 {
			t.Errorf("after a good restart: %+v", st)
		}
	})
}

// TestStopOfAWholeGroup: who tells a whole group of processes to stop, as a
// terminal does, kills workers that do not listen yet. That is no reason for the
// master to say that none can boot.
func TestStopOfAWholeGroup(t *testing.T) {
	for range 20 { // what the master sees first is a matter of chance
		bubble(t, Options{Workers: 2}, nil, func(t *testing.T, r *running, s *fakeSystem) {
			synctest.Wait()
			r.requests <- func() { // on the master's goroutine, so that all of it is there at once
				for pid := 101; pid <= 102; pid++ {
					s.process(pid).end(syscall.WaitStatus(syscall.SIGINT))
				}
				s.signals <- syscall.SIGINT
			}
			if err := <-r.ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSignalsToBootingWorkers: a worker that does not listen to signals yet dies
// of one that the master and other workers take calmly.
func TestSignalsToBootingWorkers(t *testing.T) {
	starting := func(p *fakeProcess) {
		if p.pid > 101 {
			obedient(p)
		}
	}
	bubble(t, Options{Workers: 1}, starting, func(t *testing.T, r *running, s *fakeSystem) {
		synctest.Wait()
		s.process(101).end(syscall.WaitStatus(syscall.SIGHUP))
		time.Sleep(time.Second)
		synctest.Wait()
		if st := r.stats(); st.BootedWorkers != 1 {
			t.Errorf("stats: %+v", st)
		}
	})
}

// TestRestartMendsCrashLoop: workers of the old program cannot boot any more, one
// of them or all; a restart brings a program that can.
func TestRestartMendsCrashLoop(t *testing.T) {
	for _, crash := range []int{1, 2} {
		t.Run(fmt.Sprint(crash), func(t *testing.T) {
			broken := false
			var mu sync.Mutex
			starting := func(p *fakeProcess) {
				mu.Lock()
				fails := broken && p.inheritance.Phase == 0
				mu.Unlock()
				if fails {
					p.say(worker.KindHello, worker.Protocol, "")
					p.end(exited(exitBoot))
					return
				}
				obedient(p)
			}
			bubble(t, Options{Workers: 2}, starting, func(t *testing.T, r *running, s *fakeSystem) {
				synctest.Wait()
				mu.Lock()
				broken = true
				mu.Unlock()
				for i := range crash {
					s.process(101 + i).end(syscall.WaitStatus(syscall.SIGSEGV))
				}
				time.Sleep(time.Minute)
				r.restarts(t)
			})
		})
	}
}

// TestRestartOfDegradedStart: a worker of the first phase cannot boot. A restart
// that is asked for before or after that is known does not wait until it can.
func TestRestartOfDegradedStart(t *testing.T) {
	for _, early := range []bool{true, false} {
		t.Run(fmt.Sprintf("asked for early %t", early), func(t *testing.T) {
			starting := func(p *fakeProcess) {
				if p.inheritance.Index == 1 && p.inheritance.Phase == 0 {
					time.Sleep(time.Second)
					p.say(worker.KindHello, worker.Protocol, "")
					p.end(exited(exitBoot))
					return
				}
				obedient(p)
			}
			bubble(t, Options{Workers: 2}, starting, func(t *testing.T, r *running, s *fakeSystem) {
				if !early {
					time.Sleep(time.Minute)
				}
				synctest.Wait()
				r.restarts(t)
			})
		})
	}
}

func TestClosedPipe(t *testing.T) {
	bubble(t, Options{Workers: 2}, obedient, func(t *testing.T, r *running, s *fakeSystem) {
		synctest.Wait()
		p := s.process(101)
		p.pipe.Close()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !s.dead(101) || s.got(101)[0] != syscall.SIGKILL {
			t.Errorf("dead: %t, got %v", s.dead(101), s.got(101))
		}
		r.expect("it has closed its pipe and lives on")
	})
}

func TestNonsense(t *testing.T) {
	bubble(t, Options{Workers: 2}, obedient, func(t *testing.T, r *running, s *fakeSystem) {
		synctest.Wait()
		p := s.process(101)
		_, _ = p.pipe.Write([]byte("zz\x01\n" + strings.Repeat("x", 3*longestLine) + "\n"))
		_, _ = p.pipe.Write([]byte("p999:0\n")) // of somebody else
		synctest.Wait()
		r.expect("what is no message")
		if s.dead(101) {
			t.Fatal("a little nonsense is ignored")
		}
		for range mostNonsense {
			_, _ = p.pipe.Write([]byte("?\n"))
		}
		synctest.Wait()
		if !s.dead(101) {
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
		left := func() (n int) {
			synctest.Wait()
			s.locked(func() { n = len(s.orphans) })
			return n
		}
		s.locked(func() { s.orphans = []int{7001, 7002} })
		s.children <- childSignal
		if left() != 2 {
			t.Error("who waits for them has no time to")
		}
		time.Sleep(1100 * time.Millisecond)
		if n := left(); n != 0 {
			t.Errorf("%d are not reaped", n)
		}
		if st := r.stats(); st.Counts.Orphans != 2 || st.BootedWorkers != 1 {
			t.Errorf("stats: %+v", st)
		}
	})
}

// TestStopWhilePreparing: what prepares is killed, and nothing is called a
// failure.
func TestStopWhilePreparing(t *testing.T) {
	slow := func(p *fakeProcess) {
		if p.inheritance.Role == worker.RolePreload && p.inheritance.Phase == 1 {
			p.say(worker.KindHello, worker.Protocol, "")
			return
		}
		if p.inheritance.Role == worker.RolePreload {
			p.say(worker.KindHello, worker.Protocol, "")
			_, _ = unix.FcntlInt(uintptr(p.inheritance.Preload), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK)
			p.end(exited(0))
			return
		}
		obedient(p)
	}
	bubble(t, Options{Workers: 2, Preload: true}, slow, func(t *testing.T, r *running, s *fakeSystem) {
		synctest.Wait()
		if err := r.PhasedRestart(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		begun := time.Now()
		if err := r.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := <-r.ended; err != nil || time.Since(begun) > 0 {
			t.Errorf("Run returned %v after %s", err, time.Since(begun))
		}
		if text := r.log.String(); strings.Contains(text, "failed") || strings.Contains(text, "ERROR") {
			t.Error("something is said to have failed")
		}
		if err := r.PhasedRestart(); !errors.Is(err, ErrStopped) {
			t.Errorf("a restart afterwards: %v", err)
		}
	})
}

func TestForkHooks(t *testing.T) {
	var calls []string
	note := func(name string) func(int) { return func(index int) { calls = append(calls, fmt.Sprint(name, index)) } }
	o := Options{Workers: 2, Hooks: Hooks{BeforeWorkerFork: note("before"), AfterWorkerFork: note("after")}}
	bubble(t, o, obedient, func(t *testing.T, r *running, s *fakeSystem) {
		synctest.Wait()
		s.process(102).end(exited(1))
		synctest.Wait()
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		if got := strings.Join(calls, " "); got != "before0 after0 before1 after1 before1 after1" {
			t.Errorf("hooks: %s", got)
		}
	})
}

// TestKilledFromOutside: a worker that somebody kills is replaced soon, the
// twentieth time as well. One that the kernel kills for memory has to wait.
func TestKilledFromOutside(t *testing.T) {
	bubble(t, Options{Workers: 2}, obedient, func(t *testing.T, r *running, s *fakeSystem) {
		synctest.Wait()
		pid := 102
		for range 20 {
			begun := time.Now()
			s.process(pid).end(syscall.WaitStatus(syscall.SIGKILL))
			synctest.Wait()
			for len(s.live()) < 2 {
				time.Sleep(time.Millisecond)
				synctest.Wait()
			}
			if took := time.Since(begun); took > killedPause {
				t.Errorf("replaced after %s", took)
			}
			live := s.live()
			pid = live[1].pid
		}
		for range 2 {
			time.Sleep(time.Second)
			s.locked(func() { s.oomKills++ })
			s.process(pid).end(syscall.WaitStatus(syscall.SIGKILL))
			synctest.Wait()
			live := s.live()
			pid = live[len(live)-1].pid
		}
		if n := len(s.live()); n != 1 {
			t.Errorf("%d workers; the second time that memory was short its successor should wait", n)
		}
	})
}

// What a process has written before its death is read, however late the master
// is, and though others hold its pipe as well.
func TestLastWords(t *testing.T) {
	for range 200 {
		pipe, err := newPipe()
		if err != nil {
			t.Fatal(err)
		}
		c := &Cluster{events: make(chan event), done: make(chan struct{})}
		dead := &task{child: child{messages: os.NewFile(uintptr(pipe.read), "|messages"), check: -1}}
		said := worker.Message{Kind: worker.KindHello, PID: 1, Value: worker.Protocol}.Append(nil)
		said = worker.Message{Kind: worker.KindFailed, PID: 1, Text: "why"}.Append(said)
		if _, err := syscall.Write(pipe.write, said); err != nil {
			t.Fatal(err)
		}
		deliver := func(m worker.Message, err error) event { return event{task: dead, message: m, err: err} }
		c.read(&dead.child, func(m worker.Message, err error) { c.send(deliver(m, err)) })
		c.finishReader(&dead.child, func(m worker.Message, err error) { c.handle(deliver(m, err)) })
		dead.child.close()
		_ = syscall.Close(pipe.write)
		if dead.protocol != worker.Protocol || dead.failure != "why" {
			t.Fatalf("heard of protocol %d, failure %q", dead.protocol, dead.failure)
		}
	}
}
