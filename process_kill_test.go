package catamount_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func itoa(n int) string { return strconv.Itoa(n) }

// A killed worker takes with it what it was serving, and what had come on its
// connections and was not served yet; nothing else.
func TestKilledWorkers(t *testing.T) {
	m := newDeployment(t).start(appConfig{Workers: 2})
	load := (&load{addr: m.addr, path: "/work", polite: true}).start(t, 32, 8)
	served, connected, slowest := 0, 0, time.Duration(0)
	for i := range restarts() {
		pids := m.children()
		if len(pids) != 2 {
			t.Fatalf("children %v, want 2", pids)
		}
		killed := time.Now()
		if err := syscall.Kill(pids[i%2], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		line := m.await("the worker is dead", itoa(pids[i%2]))
		if !strings.Contains(line, "SIGKILL") {
			t.Errorf("the log says %s, want the signal", line)
		}
		running, connections := lostWith(t, line)
		served += running
		connected += connections
		m.await(`"worker booted"`)
		slowest = max(slowest, time.Since(killed))
		await := load.requests.Load() + 40
		poll(t, "the load goes on", func() bool { return load.requests.Load() > await })
	}
	failures := load.end()
	t.Logf("%d requests; %d kills, %d requests were being served on %d connections, %d were lost; the slowest replacement took %v",
		load.requests.Load(), restarts(), served, connected, len(failures), slowest)
	for i, err := range failures {
		if i < 3 {
			t.Logf("lost: %v", err)
		}
	}
	// How many had come and were not read yet depends on how busy the machine is.
	// A connection has one at most. One may have been accepted just before the
	// kill, and not have been counted.
	if most := connected + restarts(); len(failures) > most {
		t.Errorf("%d requests lost, want at most %d", len(failures), most)
	}
	if served == 0 {
		t.Error("no worker was serving anything when it was killed: the test shows nothing")
	}
}

// lostWith takes from the log line of a dead worker how many requests it was
// serving (the line lists some and says how many more there were) and how many
// connections it had.
func lostWith(t *testing.T, line string) (served, connections int) {
	t.Helper()
	var dead struct {
		Serving     []string
		Connections int
	}
	if err := json.Unmarshal([]byte(line), &dead); err != nil {
		t.Fatal(err)
	}
	served = len(dead.Serving)
	if served > 0 {
		more := 0
		if _, err := fmt.Sscanf(dead.Serving[served-1], "and %d more", &more); err == nil {
			served += more - 1
		}
	}
	return served, dead.Connections
}

func TestKilledMaster(t *testing.T) {
	m := newDeployment(t).start(appConfig{Workers: 2})
	conn := dial(t, "tcp", m.addr)
	if _, err := io.WriteString(conn, "GET /slow?for=2s HTTP/1.1\r\nHost: test\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(conn)
	answer, err := http.ReadResponse(reader, nil) // its head says that the handler runs
	if err != nil {
		t.Fatal(err)
	}
	workers := m.children()
	if err := m.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// The port is free at once, though a request is still served.
	poll(t, "the port is free", func() bool {
		l, err := net.Listen("tcp", m.addr)
		if err == nil {
			l.Close()
		}
		return err == nil
	})
	if body, err := io.ReadAll(answer.Body); err != nil || len(body) == 0 {
		t.Errorf("the request that ran got %q, %v", body, err)
	}
	for _, pid := range workers {
		poll(t, fmt.Sprintf("worker %d ends", pid), func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH || zombie(pid) })
	}
	waitFor(t, m.ended)
}

// zombie: it has ended, and whoever has inherited it takes his time.
func zombie(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(text), ") Z ")
}

func TestStopFinishesWhatRuns(t *testing.T) {
	m := newDeployment(t).start(appConfig{Workers: 2})
	conn := dial(t, "tcp", m.addr)
	if _, err := io.WriteString(conn, "GET /slow?for=1s HTTP/1.1\r\nHost: test\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	m.signal(syscall.SIGTERM)
	if body, err := io.ReadAll(answer.Body); err != nil || len(body) == 0 {
		t.Errorf("the request that ran got %q, %v", body, err)
	}
	m.wantExit(0)
}

func TestStopDelay(t *testing.T) {
	m := newDeployment(t).start(appConfig{Workers: 2, ShutdownDelay: time.Minute})
	m.signal(syscall.SIGTERM)
	m.await("it still accepts for a while")
	conn := dial(t, "tcp", m.addr)
	if _, err := io.WriteString(conn, "GET /whoami HTTP/1.1\r\nHost: test\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != 200 || !answer.Close {
		t.Errorf("while it waits: %s, close %t; want an answer that announces the close", answer.Status, answer.Close)
	}
	m.signal(syscall.SIGTERM)
	m.wantExit(0)
}

func TestHungWorkerIsReplaced(t *testing.T) {
	m := newDeployment(t).start(appConfig{Workers: 2,
		WorkerCheckInterval: 100 * time.Millisecond, WorkerTimeout: time.Second})
	pid := m.children()[0]
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	poll(t, "it has stopped", func() bool { return isStopped(t, pid) })
	// Nobody waits for it meanwhile.
	for range 20 {
		if id := m.whoami(); id.PID == pid {
			t.Fatal("a stopped process has answered")
		}
	}
	m.await("the worker is dead", itoa(pid))
	m.await(`"worker booted"`)
}

// isStopped reports whether all threads of a process have stopped: until the
// last one has, it may still accept a connection, which then waits.
func isStopped(t *testing.T, pid int) bool {
	t.Helper()
	paths, err := filepath.Glob("/proc/" + itoa(pid) + "/task/*/stat")
	if err != nil || len(paths) == 0 {
		t.Fatalf("process %d has no threads (%v)", pid, err)
	}
	return !slices.ContainsFunc(paths, func(path string) bool {
		text, err := os.ReadFile(path)
		_, state, _ := strings.Cut(string(text), ") ") // behind the name
		return err == nil && !strings.HasPrefix(state, "T")
	})
}

func TestQuitDumpsAllAndGoesOn(t *testing.T) {
	m := newDeployment(t).start(appConfig{Workers: 2})
	m.signal(syscall.SIGQUIT)
	for range 3 {
		m.await("goroutine 1 [")
	}
	m.whoami()
}

// TestFewDescriptors: what a master and its workers need is far less than the
// usual limits, and where it is not the log says what the limit is.
func TestFewDescriptors(t *testing.T) {
	limited := func(n int) []string { return []string{"sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$0"`, n)} }
	d := newDeployment(t)
	m := d.start(appConfig{Workers: 2, Preload: true}, limited(64)...)
	m.signal(syscall.SIGUSR2)
	m.await("hot restart complete")
	m.whoami()

	m = d.launch(appConfig{Workers: 2}, limited(24)...)
	m.await("serving failed", "RLIMIT_NOFILE (ulimit -n) is 24")
	m.wantExit(1)
}

// TestLogWithoutReader: whoever read the log has ended, as journald does in an
// upgrade. What writes to standard error then gets a SIGPIPE, which ends a Go
// program unless it says otherwise.
func TestLogWithoutReader(t *testing.T) {
	for name, config := range map[string]appConfig{"single": {}, "cluster": {Workers: 2}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newDeployment(t).start(config)
			pipe, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/2", m.Process.Pid))
			if err != nil {
				t.Fatal(err)
			}
			m.mu.Lock()
			m.deaf = true
			m.mu.Unlock()
			m.signal(syscall.SIGHUP) // its line is the last that is taken
			until(t, "the pipe is closed", func() bool {
				for _, target := range openDescriptors() {
					if target == pipe {
						return false
					}
				}
				return true
			})
			m.signal(syscall.SIGHUP)
			m.signal(syscall.SIGQUIT) // all processes write
			m.whoami()
			if config.Workers > 0 {
				phase := m.whoami().Phase
				m.signal(syscall.SIGUSR2)
				until(t, "the next phase serves", func() bool { return m.whoami().Phase > phase })
			}
			m.signal(syscall.SIGTERM)
			m.wantExit(0)
		})
	}
}

func TestWorkersThatCannotBootEndTheStart(t *testing.T) {
	d := newDeployment(t)
	d.deploy("broken-boot-once")
	m := d.launch(appConfig{Workers: 2})
	m.await("no database today")
	m.wantExit(1)
}

func TestAloneInItsNamespace(t *testing.T) {
	if err := exec.Command("unshare", "-pf", "--kill-child", "--mount-proc", "true").Run(); err != nil {
		t.Skipf("no namespaces to be had: %v", err)
	}
	m := newDeployment(t).start(appConfig{Workers: 2}, "unshare", "-pf", "--kill-child", "--mount-proc")
	if id := m.whoami(); id.PID == 1 || id.PID > 50 {
		t.Errorf("served by pid %d, want a worker of a namespace of its own", id.PID)
	}
	init := m.children()[0] // unshare's child: process 1 in there
	if err := syscall.Kill(init, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	m.await("phased restart complete")
	m.whoami()
	if err := syscall.Kill(init, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	m.wantExit(0)
}
