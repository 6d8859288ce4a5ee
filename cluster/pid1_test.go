package cluster

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestPID1: in a namespace of pids of its own, whose /proc is still that of
// outside, the master is process 1: it reaps orphans, gets signals, restarts
// and stops.
func TestPID1(t *testing.T) {
	if err := exec.Command("unshare", "-pf", "true").Run(); err != nil {
		t.Skip("unshare -pf needs privileges: ", err)
	}
	// The shell starts a process that becomes an orphan, and then the master in
	// its own place.
	m := startMaster(t, masterConfig{Directory: release(t, "orphan"), Bind: "tcp://127.0.0.1:0", Workers: 2, Preload: true},
		"unshare", "-pf", "--kill-child", "--")
	m.log.await(t, 1, "all workers booted")
	m.log.await(t, 2, "orphan reaped") // one of each worker
	addr := m.addr()
	text, err := get(addr)
	var index, phase, pid int
	if _, scanErr := fmt.Sscanf(text, "worker %d phase %d pid %d", &index, &phase, &pid); err != nil || scanErr != nil || pid > 30 {
		t.Fatalf("got %q, %v: want a small pid", text, err)
	}
	master := m.find(`master has the outer pid (\d+)`)
	signal := func(s syscall.Signal) {
		t.Helper()
		var outer int
		if _, err := fmt.Sscan(master, &outer); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(outer, s); err != nil {
			t.Fatal(err)
		}
	}
	signal(syscall.SIGUSR2)
	m.log.await(t, 1, "hot restart complete")
	signal(syscall.SIGUSR1)
	m.log.await(t, 1, "phased restart complete")
	signal(syscall.SIGQUIT)
	m.log.await(t, 2, "stacks of worker")
	signal(syscall.SIGTERM)
	if err := m.Wait(); err != nil {
		t.Error(err)
	}
	if n := m.log.lines("worker stopped"); n != 6 {
		t.Errorf("%d workers stopped, want 6", n)
	}
	if strings.Contains(m.log.String(), "is lost") {
		t.Error("the status of a worker was lost")
	}
}
