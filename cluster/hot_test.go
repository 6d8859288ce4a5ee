package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/catamount-server/catamount/internal/page"
	"github.com/catamount-server/catamount/worker"
)

// masterVariable makes the test program a master, with these options.
const masterVariable = "CATAMOUNT_TEST_MASTER"

type masterConfig struct {
	Directory, Bind string
	Workers         int
	Preload         bool
	Delay           time.Duration
	BootTimeout     time.Duration
}

// masterMain is a master in a process of its own. What its behaviour says about
// masters ("bad-master", "layout-master", "scaled-master") it looks up each
// time that it is executed.
func masterMain(text string) int {
	var c masterConfig
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		panic(err)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	variable := os.Getenv(StateVariable)
	os.Unsetenv(StateVariable)
	behaviour, _ := os.ReadFile(filepath.Join(c.Directory, behaviourFile))
	does := func(word string) bool { return bytes.Contains(behaviour, []byte(word)) }
	fail := func(err error) int {
		if variable != "" {
			err = Rollback(variable, err)
		}
		log.Error("the master fails", "err", err)
		return 1
	}
	if does("wait-master") && variable != "" && !strings.Contains(variable, " ") {
		log.Info("the new program waits")
		_, _ = os.ReadFile(filepath.Join(c.Directory, gateFile)) // until somebody writes to it
	}
	if does("bad-master") && variable != "" && !strings.Contains(variable, " ") {
		return fail(errors.New("the master is\nnot itself"))
	}
	if _, other, ok := strings.Cut(string(behaviour), "bind="); ok {
		c.Bind = strings.Fields(other)[0]
	}
	bind, err := ParseBind(c.Bind)
	if err != nil {
		return fail(err)
	}
	program, err := os.Executable()
	if err != nil {
		return fail(err)
	}
	directory := c.Directory
	if _, other, ok := strings.Cut(string(behaviour), "directory="); ok {
		directory = strings.Fields(other)[0]
	}
	if does("workers=1") {
		c.Workers = 1
	}
	o := Options{
		Logger: log, Workers: c.Workers, Binds: []Bind{bind}, Directory: directory, Preload: c.Preload,
		Path: program, CheckInterval: 100 * time.Millisecond, ShutdownTimeout: 10 * time.Second, ShutdownDelay: c.Delay, BootTimeout: c.BootTimeout,
		StatsLayout: page.Layout{StatsBytes: 64, Fingerprint: 1}, State: variable,
	}
	if does("real-master") {
		o.StatsLayout = worker.StatsLayout()
	}
	if does("layout-master") {
		o.StatsLayout.Fingerprint = 2
	}
	if does("scaled-master") {
		o.MaxWorkers = 20
	}
	if does("invalid-master") && !strings.Contains(variable, " ") {
		o.Jitter = -1
	}
	cluster, err := New(o)
	if err != nil {
		log.Error("the master fails", "err", err)
		return 1
	}
	if outer, err := os.Readlink("/proc/self"); err == nil && outer != fmt.Sprint(os.Getpid()) {
		log.Info("master has the outer pid " + outer)
	}
	log.Info("listening", "addr", cluster.Addrs()[0].String())
	if err := cluster.Run(context.Background()); err != nil {
		log.Error("the master fails", "err", err)
		return 1
	}
	return 0
}

// masterProcess is such a master.
type masterProcess struct {
	*exec.Cmd
	t   *testing.T
	log *logBook
}

func startMaster(t *testing.T, c masterConfig, prefix ...string) *masterProcess {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	words := append(prefix, program)
	m := &masterProcess{Cmd: exec.Command(words[0], words[1:]...), t: t, log: newLogBook()}
	m.Env = append(os.Environ(), masterVariable+"="+string(text))
	m.Stderr = m.log
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if m.ProcessState == nil {
			_ = m.Process.Kill()
			_ = m.Wait()
		}
		if t.Failed() {
			t.Logf("the master's log:\n%s", m.log)
		}
	})
	return m
}

func (m *masterProcess) signal(s syscall.Signal) {
	m.t.Helper()
	if err := m.Process.Signal(s); err != nil {
		m.t.Fatal(err)
	}
}

// find waits for a line of the log and returns the first match in it.
func (m *masterProcess) find(pattern string) string {
	m.t.Helper()
	m.log.await(m.t, 1, pattern[:strings.IndexAny(pattern, "([\\")])
	match := regexp.MustCompile(pattern).FindStringSubmatch(m.log.String())
	if match == nil {
		m.t.Fatalf("no %s in the log:\n%s", pattern, m.log)
	}
	return match[1]
}

func (m *masterProcess) addr() net.Addr {
	m.t.Helper()
	addr, err := net.ResolveTCPAddr("tcp", m.find(`msg=listening addr=(\S+)`))
	if err != nil {
		m.t.Fatal(err)
	}
	return addr
}

// end stops it by TERM.
func (m *masterProcess) end() {
	m.t.Helper()
	m.signal(syscall.SIGTERM)
	watchdog := time.AfterFunc(patience, func() { _ = m.Process.Kill() })
	defer watchdog.Stop()
	if err := m.Wait(); err != nil {
		m.t.Errorf("the master ended with %v; its log:\n%s", err, m.log)
	}
}

func TestHotRestart(t *testing.T) {
	m := startMaster(t, masterConfig{Directory: release(t, "data "), Bind: "tcp://127.0.0.1:0", Workers: 2, Preload: true})
	m.log.await(t, 1, "all workers booted")
	addr := m.addr()
	load := startLoad(t, addr, 2)
	const rounds = 5
	for i := range rounds {
		m.signal(syscall.SIGUSR2)
		m.log.await(t, 1, "hot restart complete", fmt.Sprint("phase=", i+1))
		m.log.await(t, i+1, "the new program takes over", fmt.Sprint("pid=", m.Process.Pid))
	}
	seen := load.end()
	for i := range rounds + 1 {
		if seen[fmt.Sprint(i)] == 0 && i > 0 {
			t.Logf("phase %d has served nothing: %v", i, seen)
		}
	}
	title, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", m.Process.Pid))
	if err != nil || !strings.HasPrefix(string(title), fmt.Sprintf("%s: master [phase %d] 2/2 workers", filepath.Base(m.Path), rounds)) {
		t.Errorf("the title is %.60q, %v", title, err)
	}
	descriptors, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", m.Process.Pid))
	if err != nil || len(descriptors) > 25 {
		t.Errorf("the master has %d descriptors, %v", len(descriptors), err)
	}
	// Adopted workers are still the master's children.
	if n := m.log.lines("status of a worker is lost"); n > 0 {
		t.Errorf("%d workers were lost", n)
	}
	m.end()
	if n := m.log.lines("worker stopped"); n != 2*(rounds+1) {
		t.Errorf("%d workers stopped, want %d", n, 2*(rounds+1))
	}
}

// TestHotRestartFails: the new program cannot take over, at different moments.
// The old one serves on, says why in one line, and can be restarted afterwards.
func TestHotRestartFails(t *testing.T) {
	for _, c := range []struct {
		behaviour, reason string
	}{
		{"refuse", `the new program refuses: exit code 78: unknown key \"wokers\"`},
		{"silent", "the new program refuses: the process was killed: it took too long"},
		{"panic", "preload: the process ended with exit code 2"},
		{"bad-master", "the master is not itself"},
		{"invalid-master", "Jitter is -1"},
		{"die@2", "exit code 7"}, // the new master goes on with the old workers
	} {
		t.Run(c.behaviour, func(t *testing.T) {
			t.Parallel()
			dir := release(t, "")
			m := startMaster(t, masterConfig{Directory: dir, Bind: "tcp://127.0.0.1:0", Workers: 2, Preload: true, BootTimeout: 3 * time.Second})
			m.log.await(t, 1, "all workers booted")
			addr := m.addr()
			load := startLoad(t, addr, 1)
			setBehaviour(t, dir, c.behaviour)
			m.signal(syscall.SIGUSR2)
			m.log.await(t, 1, "hot restart failed", c.reason)
			if n := m.log.lines("restart failed"); n != 1 {
				t.Errorf("%d lines say that the restart failed", n)
			}
			if _, err := get(addr); err != nil {
				t.Error(err)
			}
			// A worker that crashes comes back.
			setBehaviour(t, dir, "")
			text, err := get(addr)
			for err == nil && !strings.HasPrefix(text, "worker 1 ") {
				text, err = get(addr)
			}
			var index, phase, pid int
			if _, err := fmt.Sscanf(text, "worker %d phase %d pid %d", &index, &phase, &pid); err != nil {
				t.Fatal(text, err)
			}
			if err := kill(pid); err != nil {
				t.Fatal(err)
			}
			m.log.await(t, 3, "worker booted", "phase=0")
			m.signal(syscall.SIGUSR2)
			m.log.await(t, 1, "hot restart complete")
			load.end()
			m.end()
		})
	}
}

// TestHotRestartOfAnotherLayout: the new program lays the shared page out
// otherwise, or wants a larger one.
func TestHotRestartOfAnotherLayout(t *testing.T) {
	for _, c := range [][2]string{
		{"layout-master layout", "its fingerprint of the statistics is 0x1, want 0x2"},
		{"scaled-master", "it has 17 slots, want 41"},
	} {
		t.Run(c[0], func(t *testing.T) {
			t.Parallel()
			dir := release(t, "")
			m := startMaster(t, masterConfig{Directory: dir, Bind: "tcp://127.0.0.1:0", Workers: 2})
			m.log.await(t, 1, "all workers booted")
			load := startLoad(t, m.addr(), 1)
			setBehaviour(t, dir, c[0])
			m.signal(syscall.SIGUSR2)
			m.log.await(t, 1, "the new workers get a shared page of their own", c[1])
			m.log.await(t, 1, "hot restart complete")
			m.signal(syscall.SIGUSR1)
			m.log.await(t, 1, "phased restart complete")
			load.end()
			m.end()
		})
	}
}

func TestBadState(t *testing.T) {
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	o := testOptions(t, release(t, ""))
	for variable, want := range map[string]string{
		"three":               "want a descriptor",
		"1":                   "want a descriptor",
		"999":                 "bad file descriptor",
		fmt.Sprint(null.Fd()): "end of JSON",
	} {
		o.State = variable
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", variable, err, want)
		}
	}
}

// TestHotRestartInAnotherDirectory: the new program's configuration says where its
// workers run, not that of the program before, which has started it.
func TestHotRestartInAnotherDirectory(t *testing.T) {
	dir, other := release(t, ""), release(t, "")
	m := startMaster(t, masterConfig{Directory: dir, Bind: "tcp://127.0.0.1:0", Workers: 2})
	m.log.await(t, 1, "all workers booted")
	where := func() string {
		t.Helper()
		text, err := get(m.addr())
		var index, phase, pid int
		if _, scanErr := fmt.Sscanf(text, "worker %d phase %d pid %d", &index, &phase, &pid); scanErr != nil {
			t.Fatal(text, err, scanErr)
		}
		path, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	setBehaviour(t, dir, "directory=/nowhere workers=1")
	m.signal(syscall.SIGUSR2)
	m.log.await(t, 1, "hot restart failed: the program before goes on", "/nowhere")
	m.signal(syscall.SIGTTIN)
	m.log.await(t, 1, "the number of workers changes", "from=2 to=3") // not those of the other configuration
	setBehaviour(t, dir, "directory="+other)
	m.signal(syscall.SIGUSR2)
	m.log.await(t, 1, "hot restart complete")
	if got := where(); got != other {
		t.Errorf("the worker runs in %s, want %s", got, other)
	}
	setBehaviour(t, dir, "")
	m.signal(syscall.SIGUSR2)
	m.log.await(t, 2, "hot restart complete")
	if got := where(); got != dir {
		t.Errorf("the worker runs in %s, want %s", got, dir)
	}
	m.end()
}

// TestHotRestartWithOtherBinds: the configuration of the new program has another
// address, which it can have or not.
func TestHotRestartWithOtherBinds(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := release(t, "")
	m := startMaster(t, masterConfig{Directory: dir, Bind: "tcp://127.0.0.1:0", Workers: 2})
	m.log.await(t, 1, "all workers booted")
	addr := m.addr()

	setBehaviour(t, dir, "bind=tcp://"+taken.Addr().String())
	m.signal(syscall.SIGUSR2)
	m.log.await(t, 1, "hot restart failed: the program before goes on", "cannot listen on tcp://"+taken.Addr().String(), "address already in use")
	if text, err := get(addr); err != nil || !strings.Contains(text, "phase 0") {
		t.Errorf("got %q, %v", text, err)
	}

	socket := &net.UnixAddr{Net: "unix", Name: filepath.Join(dir, "s")}
	setBehaviour(t, dir, "bind=unix://"+socket.Name)
	for i := range 2 { // the second time with the socket that there is
		m.signal(syscall.SIGUSR2)
		m.log.await(t, i+1, "hot restart complete")
	}
	if text, err := get(socket); err != nil || !strings.Contains(text, "phase 3") {
		t.Errorf("got %q, %v", text, err)
	}
	if _, err := get(addr); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("the old address: %v, want a refused connection", err)
	}
	m.end()
	if statSocket(socket.Name) != nil {
		t.Error("the socket's file is left over")
	}
}

// TestHotRestartOfAStranger: what is at the program's path is not a server.
func TestHotRestartOfAStranger(t *testing.T) {
	o := testOptions(t, release(t, ""))
	program := o.Path
	o.Path = filepath.Join(t.TempDir(), "app")
	install := func(target string) {
		t.Helper()
		_ = os.Remove(o.Path)
		if err := os.Symlink(target, o.Path); err != nil {
			t.Fatal(err)
		}
	}
	install(program)
	r := run(t, o)
	r.log.await(t, 1, "all workers booted")
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho hello\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]string{
		{"/bin/true", "did not say hello"},
		{"/bin/false", "the process ended with exit code 1"},
		{script, "the new program refuses"}, // the kernel or its shell says why
	} {
		target, want := c[0], c[1]
		failed := r.log.lines("hot restart failed")
		install(target)
		if err := r.HotRestart(); err != nil {
			t.Fatal(err)
		}
		r.log.await(t, failed+1, "hot restart failed: everything stays as it is")
		r.log.await(t, 1, "hot restart failed", want)
	}
	install("/nowhere")
	if err := r.HotRestart(); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a program that does not exist: %v", err)
	}
	if s := r.stats(); s.BootedWorkers != 2 || s.Phase != 0 || s.Restart != "none" {
		t.Errorf("stats: %+v", s)
	}
}

// TestHotRestartCannotExecute: at the last moment the new program cannot be
// executed after all.
func TestHotRestartCannotExecute(t *testing.T) {
	r := run(t, testOptions(t, release(t, "")))
	r.log.await(t, 1, "all workers booted")
	if err := r.do(func() {
		r.env.exec = func(string, []string, []string) error { return syscall.ENOMEM }
	}); err != nil {
		t.Fatal(err)
	}
	before := openDescriptors(t)
	for i := range 3 {
		if err := r.HotRestart(); err != nil {
			t.Fatal(err)
		}
		r.log.await(t, i+1, "hot restart failed: everything stays as it is", "cannot execute the program: cannot allocate memory")
	}
	_ = r.do(func() {
		if after := openDescriptors(t); after > before {
			t.Errorf("%d descriptors, %d before", after, before)
		}
		for _, fd := range r.snapshot(r.target).descriptors() {
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("descriptor %d is left to other programs: flags %#x, %v", fd, flags, err)
			}
		}
	})
	// The workers are still heard.
	s := r.stats()
	last := s.WorkerStatus[0].LastCheckin
	for s.WorkerStatus[0].LastCheckin.Equal(last) {
		time.Sleep(time.Millisecond)
		s = r.stats()
	}
	if err := kill(s.WorkerStatus[0].PID); err != nil {
		t.Fatal(err)
	}
	r.log.await(t, 3, "worker booted")
}

// TestTermBeforeExecute: a TERM that has come while the new program was being
// checked is not lost with the old one.
func TestTermBeforeExecute(t *testing.T) {
	r := run(t, testOptions(t, release(t, "")))
	r.log.await(t, 1, "all workers booted")
	if err := r.do(func() {
		r.env.exec = func(string, []string, []string) error {
			t.Error("the new program was executed")
			return syscall.EPERM
		}
		p, err := r.openProgram(1)
		if err != nil {
			t.Error(err)
			return
		}
		r.restart = &restart{kind: hot, program: p}
		r.signals <- syscall.SIGTERM
		r.handOverTo(p)
	}); err != nil {
		t.Fatal(err)
	}
	if err := r.wait(); err != nil {
		t.Errorf("Run returned %v", err)
	}
	if n := r.log.lines("worker stopped"); n != 2 {
		t.Errorf("%d workers stopped, want 2", n)
	}
}
