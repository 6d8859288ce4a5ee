package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// gateFile is a named pipe at which a "wait-master" waits for a writer, before
// it has looked at anything that the program before has left.
const gateFile = "gate"

// startWaiting starts a master and brings it into the middle of a hot restart:
// the new program runs and does not hear signals yet. open lets it go on.
func startWaiting(t *testing.T, behaviour string) (m *masterProcess, open func()) {
	t.Helper()
	dir := release(t, behaviour)
	if err := unix.Mkfifo(filepath.Join(dir, gateFile), 0o600); err != nil {
		t.Fatal(err)
	}
	m = startMaster(t, masterConfig{Directory: dir, Bind: "tcp://127.0.0.1:0", Workers: 2})
	m.log.await(t, 1, "all workers booted")
	m.signal(syscall.SIGUSR2)
	m.log.await(t, 1, "the new program waits")
	return m, func() {
		t.Helper()
		// Not blocking: where nobody reads the process has ended.
		gate, err := os.OpenFile(filepath.Join(dir, gateFile), os.O_WRONLY|unix.O_NONBLOCK, 0)
		for deadline := time.Now().Add(patience); err != nil; {
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
			gate, err = os.OpenFile(filepath.Join(dir, gateFile), os.O_WRONLY|unix.O_NONBLOCK, 0)
		}
		gate.Close()
	}
}

// TestSignalsBetweenPrograms: what is asked for between the two programs of a hot
// restart is done by the new one, or by the old one if that goes on.
func TestSignalsBetweenPrograms(t *testing.T) {
	for _, c := range []struct{ behaviour, restarted string }{
		{"wait-master", "hot restart complete"},
		{"wait-master bad-master", "hot restart failed"},
	} {
		t.Run(c.behaviour, func(t *testing.T) {
			t.Parallel()
			m, open := startWaiting(t, c.behaviour)
			for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGTTIN, syscall.SIGUSR1} {
				m.signal(s)
			}
			open()
			m.log.await(t, 1, "SIGHUP does nothing")
			m.log.await(t, 1, "goroutine 1 [")
			m.log.await(t, 1, "the number of workers changes", "from=2 to=3")
			m.log.await(t, 1, c.restarted)
			m.log.await(t, 1, "phased restart complete")
			wantNothingBlocked(t, m.Process.Pid)
			m.end()
		})
		t.Run(c.behaviour+", TERM", func(t *testing.T) {
			t.Parallel()
			m, open := startWaiting(t, c.behaviour)
			m.signal(syscall.SIGTERM)
			open()
			watchdog := time.AfterFunc(patience, func() { _ = m.Process.Kill() })
			defer watchdog.Stop()
			if err := m.Wait(); err != nil {
				t.Errorf("the master ended with %v", err)
			}
			if n := m.log.lines("worker stopped"); n < 2 {
				t.Errorf("%d workers stopped, want 2 at least", n)
			}
		})
	}
}

// wantNothingBlocked checks that workers were executed with no signal blocked, so
// that neither they nor the programs that they start miss any. All threads of a
// Go program but one have the mask that it was executed with.
func wantNothingBlocked(t *testing.T, master int) {
	t.Helper()
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", master))
	workers := 0
	for _, list := range lists {
		children, _ := os.ReadFile(list)
		for pid := range strings.FieldsSeq(string(children)) {
			workers++
			threads, _ := filepath.Glob("/proc/" + pid + "/task/*/status")
			free := slices.ContainsFunc(threads, func(thread string) bool {
				status, err := os.ReadFile(thread)
				return err == nil && strings.Contains(string(status), "SigBlk:\t0000000000000000")
			})
			if !free {
				t.Errorf("all threads of worker %s block signals", pid)
			}
		}
	}
	if workers == 0 {
		t.Error("no workers found")
	}
}

// TestRestartsAskedForTogether: a restart that is asked for while a hot one is
// being prepared follows, though another program has to remember it.
func TestRestartsAskedForTogether(t *testing.T) {
	m := startMaster(t, masterConfig{Directory: release(t, ""), Bind: "tcp://127.0.0.1:0", Workers: 2})
	m.log.await(t, 1, "all workers booted")
	m.signal(syscall.SIGUSR2)
	m.log.await(t, 1, "hot restart begins")
	m.signal(syscall.SIGUSR1)
	m.log.await(t, 1, "hot restart complete")
	m.log.await(t, 1, "phased restart complete")
	m.end()
}

// TestSignalsAtAnyMoment: signals hammer on a master that is being restarted. It
// does what the restarts and the end are about.
func TestSignalsAtAnyMoment(t *testing.T) {
	m := startMaster(t, masterConfig{Directory: release(t, ""), Bind: "tcp://127.0.0.1:0", Workers: 1})
	m.log.await(t, 1, "all workers booted")
	for i := range 6 {
		m.signal(syscall.SIGUSR2)
		m.hammer(func() bool { return m.log.lines("hot restart complete") > i },
			syscall.SIGHUP, syscall.SIGTTOU) // there is one worker, and shall be
	}
	m.signal(syscall.SIGUSR2)
	m.log.await(t, 7, "the new program takes over")
	// A TERM in the first moments of a program ends it at once, and its workers
	// after it; any other is an orderly stop. Nobody is left in either case.
	addr := m.addr()
	ended := make(chan error, 1)
	go func() { ended <- m.Wait() }()
	var err error
	m.hammer(func() bool {
		select {
		case err = <-ended:
			return true
		default:
			return false
		}
	}, syscall.SIGTERM)
	if err != nil && err.Error() != "signal: terminated" {
		t.Errorf("the master ended with %v", err)
	}
	for deadline := time.Now().Add(patience); ; {
		b, err := Listen(t.Context(), []Bind{{Network: "tcp", Address: addr.String()}})
		if err == nil {
			_ = b.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("a worker is left: %v", err)
		}
	}
}

// hammer sends signals, in turn, until something is the case.
func (m *masterProcess) hammer(until func() bool, signals ...syscall.Signal) {
	m.t.Helper()
	deadline := time.Now().Add(patience)
	for i := 0; !until(); i++ {
		if time.Now().After(deadline) {
			m.t.Fatal("it does not come to that")
		}
		_ = syscall.Kill(m.Process.Pid, signals[i%len(signals)])
		time.Sleep(100 * time.Microsecond) // not to fill the log
	}
}
