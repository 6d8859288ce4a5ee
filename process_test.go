package catamount_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// deployment is a folder with the program of an application in it.
type deployment struct {
	t    *testing.T
	path string // of the program
	base []byte // the test program
}

func newDeployment(t *testing.T) *deployment {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	base, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	d := &deployment{t: t, path: filepath.Join(t.TempDir(), "app"), base: base}
	d.deploy("1")
	return d
}

// deploy puts another version of the program in the place of the last.
func (d *deployment) deploy(version string) {
	d.t.Helper()
	next := d.path + ".next"
	if err := os.WriteFile(next, append(slices.Clip(d.base), versionMark+version...), 0o755); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Rename(next, d.path); err != nil {
		d.t.Fatal(err)
	}
}

// master is a running application.
type master struct {
	*exec.Cmd
	t    *testing.T
	addr string

	mu    sync.Mutex
	deaf  bool     // nobody reads the log any more
	lines []string // of its log, and of its workers'
	more  chan struct{}
	ended chan struct{} // closed when it has exited
}

// start runs the program as the configuration says, until the end of the test,
// and waits until all its workers serve. words are for the command before it.
func (d *deployment) start(config appConfig, words ...string) *master {
	d.t.Helper()
	m := d.launch(config, words...)
	var announced struct{ Binds []string }
	if err := json.Unmarshal([]byte(m.await("Listening on")), &announced); err != nil {
		d.t.Fatal(err)
	}
	m.addr = strings.TrimPrefix(announced.Binds[0], "http://")
	for range config.Workers {
		m.await(`"worker booted"`)
	}
	return m
}

func (d *deployment) launch(config appConfig, words ...string) *master {
	d.t.Helper()
	if config.Binds == nil {
		config.Binds = []string{"tcp://127.0.0.1:0"}
	}
	text, err := json.Marshal(config)
	if err != nil {
		d.t.Fatal(err)
	}
	words = append(words, d.path)
	m := &master{Cmd: exec.Command(words[0], words[1:]...), t: d.t, more: make(chan struct{}, 1), ended: make(chan struct{})}
	m.Env = append(os.Environ(), appVariable+"="+string(text), "GORACE=halt_on_error=1")
	m.Stderr = m
	m.Stdout = m
	// Workers of a master that has died keep its standard error for a while.
	m.WaitDelay = patience
	if err := m.Start(); err != nil {
		d.t.Fatal(err)
	}
	go func() {
		_ = m.Wait()
		close(m.ended)
	}()
	d.t.Cleanup(m.stop)
	return m
}

// Write takes what the processes log.
func (m *master) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.deaf {
		return 0, io.ErrClosedPipe // which makes os/exec close the pipe
	}
	for line := range bytes.Lines(p) { // a record is one write
		m.lines = append(m.lines, strings.TrimSuffix(string(line), "\n"))
	}
	select {
	case m.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

// await returns the next line of the log that has all the words; lines before
// it are passed over.
func (m *master) await(words ...string) string {
	m.t.Helper()
	deadline := time.After(patience)
	var seen []string
	for {
		m.mu.Lock()
		for len(m.lines) > 0 {
			line := m.lines[0]
			m.lines = m.lines[1:]
			seen = append(seen, line)
			if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) }) {
				m.mu.Unlock()
				return line
			}
		}
		m.mu.Unlock()
		select {
		case <-m.more:
		case <-m.ended:
			m.t.Fatalf("the master has ended (%v) without %q:\n%s", m.ProcessState, words, strings.Join(seen, "\n"))
		case <-deadline:
			m.t.Fatalf("the log has no %q:\n%s", words, strings.Join(seen, "\n"))
		}
	}
}

func (m *master) signal(s syscall.Signal) {
	m.t.Helper()
	if err := m.Process.Signal(s); err != nil {
		m.t.Fatal(err)
	}
}

// stop ends the master and everything that it has started.
func (m *master) stop() {
	select {
	case <-m.ended:
		return
	default:
	}
	if m.t.Failed() {
		m.mu.Lock()
		m.t.Logf("the rest of the log:\n%s", strings.Join(m.lines, "\n"))
		m.mu.Unlock()
	}
	_ = m.Process.Signal(syscall.SIGTERM)
	select {
	case <-m.ended:
	case <-time.After(patience):
		_ = m.Process.Kill()
		<-m.ended
		m.t.Error("the master did not end")
	}
}

// wantExit waits for the end and checks the exit code.
func (m *master) wantExit(code int) {
	m.t.Helper()
	waitFor(m.t, m.ended)
	if got := m.ProcessState.ExitCode(); got != code {
		m.t.Errorf("exit: %v, want code %d", m.ProcessState, code)
	}
}

// ask makes one request on a connection of its own.
func (m *master) ask(path string) string {
	m.t.Helper()
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}).Get("http://" + m.addr + path)
	if err != nil {
		m.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		m.t.Fatalf("%s: %s %q, %v", path, answer.Status, body, err)
	}
	return string(body)
}

func (m *master) whoami() (id whoami) {
	m.t.Helper()
	if err := json.Unmarshal([]byte(m.ask("/whoami")), &id); err != nil {
		m.t.Fatal(err)
	}
	return id
}

// children returns the pids of the master's children.
func (m *master) children() (pids []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", m.Process.Pid))
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		for _, word := range strings.Fields(string(text)) {
			var pid int
			if _, err := fmt.Sscan(word, &pid); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
