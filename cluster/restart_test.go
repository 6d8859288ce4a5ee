package cluster

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// load asks a server again and again, over new connections, until it is
// stopped; no request may fail.
type load struct {
	t    *testing.T
	stop chan struct{}
	wg   sync.WaitGroup
	mu   sync.Mutex
	seen map[string]int // by phase
	errs []error
}

func startLoad(t *testing.T, addr net.Addr, clients int) *load {
	l := &load{t: t, stop: make(chan struct{}), seen: make(map[string]int)}
	for range clients {
		l.wg.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				default:
				}
				text, err := get(addr)
				l.mu.Lock()
				if err != nil {
					l.errs = append(l.errs, err)
				} else {
					l.seen[strings.Fields(text)[3]]++
				}
				l.mu.Unlock()
				time.Sleep(time.Millisecond)
			}
		})
	}
	return l
}

// end returns how many requests each phase has served.
func (l *load) end() map[string]int {
	l.t.Helper()
	close(l.stop)
	l.wg.Wait()
	// net/http, which the test's workers use, resets connections that it has
	// accepted when it is closed: that is not the master's doing.
	refused := 0
	for _, err := range l.errs {
		if strings.Contains(err.Error(), "refused") {
			refused++
		}
	}
	if refused > 0 {
		l.t.Errorf("%d connections were refused: %v", refused, l.errs[0])
	}
	return l.seen
}

func TestPhasedRestart(t *testing.T) {
	dir := release(t, "")
	o := testOptions(t, dir)
	o.Workers = 3
	var mu sync.Mutex
	var hooks []string
	note := func(s string) { mu.Lock(); defer mu.Unlock(); hooks = append(hooks, s) }
	o.Hooks = Hooks{
		BeforeFork:          func() { note("before fork") },
		AfterBooted:         func() { note("booted") },
		BeforeRestart:       func() { note("restart"); panic("of a hook") },
		AfterWorkerShutdown: func(e Exit) { note(fmt.Sprintf("exit %d%t%s", e.Phase, e.Expected, e.Reason)) },
	}
	r := run(t, o)
	r.log.await(t, 1, "all workers booted")
	before := r.stats()
	load := startLoad(t, r.Addrs()[0], 2)
	if err := r.PhasedRestart(); err != nil {
		t.Fatal(err)
	}
	if err := r.PhasedRestart(); err != nil { // follows when the first is over
		t.Fatal(err)
	}
	r.log.await(t, 2, "phased restart complete")
	seen := load.end()
	s := r.stats()
	if s.Phase != 2 || s.BootedWorkers != 3 || s.OldWorkers != 0 || s.Counts.Restarts != 2 || s.Counts.Crashed != 0 {
		t.Errorf("stats: %+v", s)
	}
	if seen["1"] == 0 || seen["2"] == 0 {
		t.Errorf("requests by phase: %v", seen)
	}
	for _, w := range s.WorkerStatus {
		if w.Phase != 2 || w.Index > 3 {
			t.Errorf("worker %+v", w)
		}
		for _, old := range before.WorkerStatus {
			if old.PID == w.PID {
				t.Errorf("worker %d is still there", w.PID)
			}
		}
	}
	r.log.await(t, 2, "a hook has panicked", "of a hook")
	mu.Lock()
	defer mu.Unlock()
	want := "before fork booted restart exit 0truestopped exit 0truestopped exit 0truestopped booted restart " +
		"exit 1truestopped exit 1truestopped exit 1truestopped booted"
	if got := strings.Join(hooks, " "); got != want {
		t.Errorf("hooks: %s\nwant:  %s", got, want)
	}
}

// TestPhasedRestartFails: the new program cannot boot, from the beginning or
// from the third worker on.
func TestPhasedRestartFails(t *testing.T) {
	for _, c := range []struct{ behaviour, reason string }{
		{"die", "exit code 7"},
		{"fail", "exit code 3, it could not boot: the database is down"},
		{"garbage", "does not speak protocol 1"},
		{"version", "it speaks protocol 99, the master 1"},
		{"fail@0", "the database is down"}, // a worker of the new phase serves already
	} {
		t.Run(c.behaviour, func(t *testing.T) {
			t.Parallel()
			dir := release(t, "")
			r := run(t, testOptions(t, dir))
			r.log.await(t, 1, "all workers booted")
			setBehaviour(t, dir, c.behaviour)
			if err := r.PhasedRestart(); err != nil {
				t.Fatal(err)
			}
			r.log.await(t, 1, "phased restart failed: the phase before goes on", c.reason)
			setBehaviour(t, dir, "")
			for s := r.stats(); s.OldWorkers > 0 || s.BootedWorkers != 2 || len(s.WorkerStatus) != 2; s = r.stats() {
				time.Sleep(time.Millisecond) // until workers of the failed phase are replaced
			}
			s := r.stats()
			if s.Phase != 0 || s.Counts.FailedRestarts != 1 || s.Counts.BootFailures != 3 || s.Restart != "none" {
				t.Errorf("stats: %+v", s)
			}
			if n := r.log.lines("restart failed"); n != 1 {
				t.Errorf("%d lines say that the restart failed", n)
			}
			// And the next one works.
			if err := r.PhasedRestart(); err != nil {
				t.Fatal(err)
			}
			r.log.await(t, 1, "phased restart complete", "phase=2")
		})
	}
}

func TestFirstPhaseCannotBoot(t *testing.T) {
	for behaviour, reason := range map[string]string{
		"die": "no worker can boot: exit code 7", "fail": "the database is down", "version": "speaks protocol 99",
	} {
		r := run(t, testOptions(t, release(t, behaviour)))
		if err := r.wait(); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: Run returned %v, want %q", behaviour, err, reason)
		}
	}
}

// TestOneWorkerCannotBoot: the others serve, and it is started ever less often.
func TestOneWorkerCannotBoot(t *testing.T) {
	o := testOptions(t, release(t, "die@1"))
	o.Workers = 3
	r := run(t, o)
	r.log.await(t, 1, "degraded")
	r.log.await(t, 4, "the worker could not boot")
	s := r.stats()
	if s.BootedWorkers != 2 || s.Workers != 3 || s.Counts.BootFailures > 5 {
		t.Errorf("stats: %+v", s)
	}
	if n := r.log.lines("degraded"); n != 1 {
		t.Errorf("it is said %d times that the server is degraded", n)
	}
}

func TestCrashedWorkerKeepsItsProgram(t *testing.T) {
	// Two releases behind one symbolic link, as deploys do it.
	root := t.TempDir()
	for _, name := range []string{"one", "two"} {
		if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	current := filepath.Join(root, "current")
	for _, link := range [][2]string{{program, filepath.Join(root, "one", "app")}, {"one", current}} {
		if err := os.Symlink(link[0], link[1]); err != nil {
			t.Fatal(err)
		}
	}
	o := testOptions(t, current)
	o.Path, o.Workers = "app", 1
	r := run(t, o)
	r.log.await(t, 1, "all workers booted")
	// The new release has no program at all.
	if err := os.Remove(current); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("two", current); err != nil {
		t.Fatal(err)
	}
	if err := kill(r.stats().WorkerStatus[0].PID); err != nil {
		t.Fatal(err)
	}
	r.log.await(t, 2, "worker booted", "phase=0")
	worker := r.stats().WorkerStatus[0].PID
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", worker)); err != nil || filepath.Base(cwd) != "one" {
		t.Errorf("the replacement runs in %s (%v), want the release of its phase", cwd, err)
	}
	if err := r.PhasedRestart(); err == nil || !strings.Contains(err.Error(), "current/app: no such file") {
		t.Errorf("a phased restart without a program: %v", err)
	}
	if err := os.Symlink(program, filepath.Join(root, "two", "app")); err != nil {
		t.Fatal(err)
	}
	if err := r.PhasedRestart(); err != nil {
		t.Fatal(err)
	}
	r.log.await(t, 1, "phased restart complete")
	worker = r.stats().WorkerStatus[0].PID
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", worker)); err != nil || filepath.Base(cwd) != "two" {
		t.Errorf("the new phase runs in %s (%v)", cwd, err)
	}
}

func TestPreload(t *testing.T) {
	dir := release(t, "one ")
	o := testOptions(t, dir)
	o.Preload = true
	r := run(t, o)
	r.log.await(t, 1, "preloaded", "phase=0", "bytes=13")
	r.log.await(t, 1, "all workers booted")
	setBehaviour(t, dir, "second ")
	if err := r.PhasedRestart(); err != nil {
		t.Fatal(err)
	}
	r.log.await(t, 1, "preloaded", "phase=1", "bytes=16")
	r.log.await(t, 1, "phased restart complete", "phase=1")
	for i, c := range [][2]string{
		{"panic", "exit code 2"},
		{"unsealed", "has left its memory unsealed"},
		{"fail", "the database is down"},
		{"silent", "it took too long"},
	} {
		setBehaviour(t, dir, c[0])
		if err := r.do(func() { r.options.PreloadTimeout = patience }); err != nil {
			t.Fatal(err)
		}
		if c[0] == "silent" {
			_ = r.do(func() { r.options.PreloadTimeout = 50 * time.Millisecond })
		}
		if err := r.PhasedRestart(); err != nil {
			t.Fatal(err)
		}
		r.log.await(t, 1, "phased restart failed: everything stays as it is", c[1])
		if s := r.stats(); s.Phase != 1 || s.BootedWorkers != 2 || s.Counts.FailedRestarts != uint64(i+1) {
			t.Errorf("%s: stats: %+v", c[0], s)
		}
	}
	setBehaviour(t, dir, "panic")
	first := run(t, o)
	if err := first.wait(); err == nil || !strings.Contains(err.Error(), "preload: ") {
		t.Errorf("Run returned %v, want one about the preload", err)
	}
}

// TestRestartsLeaveNothing: no descriptor is left over by restarts, crashes and
// failures.
func TestRestartsLeaveNothing(t *testing.T) {
	dir := release(t, "")
	o := testOptions(t, dir)
	o.Workers, o.Preload = 1, true
	r := run(t, o)
	r.log.await(t, 1, "all workers booted")
	count := func() (n int) {
		if err := r.do(func() { n = openDescriptors(t) }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	restart := func(from, to int) {
		for i := from; i < to; i++ {
			if err := r.PhasedRestart(); err != nil {
				t.Fatal(err)
			}
			r.log.await(t, i+1, "phased restart complete")
		}
	}
	restart(0, 5)
	before := count()
	rounds := 200
	if testing.Short() {
		rounds = 20
	}
	restart(5, 5+rounds)
	setBehaviour(t, dir, "die")
	if err := r.PhasedRestart(); err != nil {
		t.Fatal(err)
	}
	r.log.await(t, 1, "phased restart failed")
	if after := count(); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Error(err)
	}
	return len(entries)
}

func TestListenersStayNonBlocking(t *testing.T) {
	r := run(t, testOptions(t, release(t, "")))
	r.log.await(t, 1, "all workers booted")
	check := func(want bool) {
		t.Helper()
		flags, err := unix.FcntlInt(uintptr(r.binder.listeners[0].fd), unix.F_GETFL, 0)
		if err != nil || (flags&unix.O_NONBLOCK != 0) != want {
			t.Errorf("flags %#x, %v", flags, err)
		}
	}
	_ = r.do(func() {
		check(true)
		if err := syscall.SetNonblock(r.binder.listeners[0].fd, false); err != nil {
			t.Error(err)
		}
		_ = r.scale(3) // starts one before anybody can be caught in a blocking accept
	})
	r.log.await(t, 1, "somebody has made a listening socket blocking")
	_ = r.do(func() { check(true) })
}
