package catamount_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// restarts is how many restarts of a kind each test makes. "go test -short", and
// the race detector, which makes everything slow, do with fewer.
func restarts() int {
	if testing.Short() || raceDetector {
		return 4
	}
	return 20
}

// slowest is how long a request may take in the middle of a restart. The race
// detector makes everything ten times as slow.
func slowest() time.Duration {
	if raceDetector {
		return 10 * time.Second
	}
	return time.Second
}

func TestPhasedRestarts(t *testing.T) {
	d := newDeployment(t)
	m := d.start(appConfig{Workers: 2, Preload: true})
	load := startLoad(t, m.addr, 64, 16)
	for range restarts() {
		m.signal(syscall.SIGUSR1)
		m.await("phased restart complete")
	}
	load.wantNoFailure(t, slowest())
	if n := load.reconnects.Load(); n > 0 {
		t.Errorf("%d times a client had to connect anew", n)
	}
	if id := m.whoami(); id.Phase != restarts() || id.Hits < uint64(load.requests.Load()/2) {
		t.Errorf("after %d restarts and %d requests: %+v", restarts(), load.requests.Load(), id)
	}
}

func TestHotRestarts(t *testing.T) {
	d := newDeployment(t)
	m := d.start(appConfig{Workers: 2, Preload: true})
	load := startLoad(t, m.addr, 64, 16)
	for range restarts() {
		m.signal(syscall.SIGUSR2)
		m.await("hot restart complete")
	}
	load.wantNoFailure(t, slowest())
	if id := m.whoami(); id.Hits < uint64(load.requests.Load()/2) {
		t.Errorf("after %d requests the counter says %d", load.requests.Load(), id.Hits)
	}
}

func TestRestartsBringNewPrograms(t *testing.T) {
	d := newDeployment(t)
	m := d.start(appConfig{Workers: 2, Preload: true})
	if id := m.whoami(); id.Version != "1" || id.Preloaded != "1" {
		t.Errorf("before any restart: %+v", id)
	}
	d.deploy("2")
	// A worker that crashes now comes back as what it was.
	for _, pid := range m.children() {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		m.await(`"worker booted"`)
		if id := m.whoami(); id.Version != "1" || id.Preloaded != "1" {
			t.Errorf("after a crash between deployment and restart: %+v", id)
		}
	}
	m.signal(syscall.SIGUSR1)
	m.await("phased restart complete")
	if id := m.whoami(); id.Version != "2" || id.Preloaded != "2" {
		t.Errorf("after a phased restart: %+v", id)
	}
	d.deploy("3")
	m.signal(syscall.SIGUSR2)
	m.await("hot restart complete")
	if id := m.whoami(); id.Version != "3" || id.Preloaded != "3" {
		t.Errorf("after a hot restart: %+v", id)
	}
	if exe, err := os.ReadFile("/proc/" + itoa(m.Process.Pid) + "/exe"); err != nil || !strings.HasSuffix(string(exe), versionMark+"3") {
		t.Errorf("the master does not run the new program (%v)", err)
	}
}

func TestRestartsIntoBrokenPrograms(t *testing.T) {
	for _, c := range []struct{ way, reason string }{
		{"exit", "9"},
		{"config", "MaxBootFailures"},
		{"preload", "upside down"},
		{"boot-once", "no database today"},
	} {
		t.Run(c.way, func(t *testing.T) {
			d := newDeployment(t)
			m := d.start(appConfig{Workers: 2, Preload: true})
			load := startLoad(t, m.addr, 16, 4)
			d.deploy("broken-" + c.way)

			m.signal(syscall.SIGUSR1)
			if c.way == "preload" {
				if line := m.await("the application panicked"); strings.Contains(line, `"worker":`) {
					t.Errorf("the process that preloads is no worker: %s", line)
				}
			}
			if line := m.await("phased restart failed"); !strings.Contains(line, c.reason) {
				t.Errorf("the log says %s, want %q in it", line, c.reason)
			}
			if id := m.whoami(); id.Version != "1" {
				t.Errorf("after a failed phased restart: %+v", id)
			}
			m.signal(syscall.SIGUSR2)
			if line := m.await("hot restart failed"); !strings.Contains(line, c.reason) {
				t.Errorf("the log says %s, want %q in it", line, c.reason)
			}
			if id := m.whoami(); id.Version != "1" {
				t.Errorf("after a failed hot restart: %+v", id)
			}
			// It is no dead end.
			d.deploy("2")
			m.signal(syscall.SIGUSR1)
			m.await("phased restart complete")
			load.wantNoFailure(t, 2*slowest())
			if id := m.whoami(); id.Version != "2" {
				t.Errorf("after a phased restart into a sound program: %+v", id)
			}
		})
	}
}

func TestScaling(t *testing.T) {
	m := newDeployment(t).start(appConfig{Workers: 2, MaxWorkers: 6})
	load := startLoad(t, m.addr, 64, 16)
	for range 4 {
		m.signal(syscall.SIGTTIN)
		m.await(`"worker booted"`)
	}
	m.signal(syscall.SIGTTIN)
	m.await("the number of workers stays")
	for range 5 {
		m.signal(syscall.SIGTTOU)
		m.await("worker stopped")
	}
	m.signal(syscall.SIGTTOU)
	m.await("the number of workers stays")
	for range 3 {
		m.signal(syscall.SIGTTIN)
		m.await(`"worker booted"`)
	}
	if n := len(m.children()); n != 4 {
		t.Errorf("%d workers, want 4", n)
	}
	load.wantNoFailure(t, 2*slowest())
}

// TestHotRestartWithoutAPlaceForThePidfile: somebody has taken away the folder in
// which it was. Neither the new program nor the one from before can write it, and
// the server must not end for that.
func TestHotRestartWithoutAPlaceForThePidfile(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "run")
	pidfile := filepath.Join(folder, "pid")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	d := newDeployment(t)
	m := d.start(appConfig{Workers: 1, Pidfile: pidfile})
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	m.signal(syscall.SIGUSR2)
	m.await("the pidfile cannot be written")
	m.await("hot restart failed: the program before goes on", "pidfile: open")
	m.await("hook: before fork") // in the program before, which is executed anew
	m.whoami()
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	m.signal(syscall.SIGUSR2)
	m.await("the new program takes over")
	m.await("hook: before fork")
	m.await("hot restart complete")
	if text, err := os.ReadFile(pidfile); string(text) != fmt.Sprintf("%d\n", m.Process.Pid) {
		t.Errorf("the pidfile has %q, %v", text, err)
	}
}

// TestHotRestartMovesPidfile: files of another name take the place of the old
// ones, which would tell of a process that has ended some day.
func TestHotRestartMovesPidfile(t *testing.T) {
	folder := t.TempDir()
	d := newDeployment(t)
	m := d.start(appConfig{Workers: 1, Pidfile: filepath.Join(folder, "pid"), StateFile: filepath.Join(folder, "state")})
	for _, step := range []struct {
		version string
		want    []string
	}{{"2 other-files", []string{"pid.2", "state.2"}}, {"3", []string{"pid", "state"}}} {
		d.deploy(step.version)
		m.signal(syscall.SIGUSR2)
		m.await("hot restart complete")
		if got := namesIn(t, folder); !slices.Equal(got, step.want) {
			t.Errorf("after the restart into %s there are %q, want %q", step.version, got, step.want)
		}
	}
	m.signal(syscall.SIGTERM)
	m.wantExit(0)
	if got := namesIn(t, folder); len(got) > 0 {
		t.Errorf("at the end there are %q", got)
	}
}

func namesIn(t *testing.T, folder string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}
