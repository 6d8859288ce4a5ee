package catamount

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPidfile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.pid")
	if err := os.WriteFile(path, []byte("1234567890 left behind by one that was killed\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := writePidfile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(path); string(text) != fmt.Sprintf("%d\n", os.Getpid()) {
		t.Errorf("the file has %q", text)
	}
	if _, err := writePidfile(path); err == nil || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("a second one got the error %v, want one with the pid", err)
	}
	p.remove()
	if _, err := os.Stat(path); err == nil {
		t.Error("the file is still there")
	}
}

// TestPidfileIsNeverEmpty: who waits for the file and reads it at once finds a
// pid in it.
func TestPidfileIsNeverEmpty(t *testing.T) {
	directory := t.TempDir()
	for i := range 300 {
		path := filepath.Join(directory, fmt.Sprint(i))
		read := make(chan string, 1)
		go func() {
			for {
				if text, err := os.ReadFile(path); err == nil {
					read <- string(text)
					return
				}
			}
		}()
		p, err := writePidfile(path)
		if err != nil {
			t.Fatal(err)
		}
		if text := <-read; text != fmt.Sprintf("%d\n", os.Getpid()) {
			t.Fatalf("the file has %q", text)
		}
		p.remove()
	}
	if left, _ := os.ReadDir(directory); len(left) > 0 {
		t.Errorf("%s is still there", left[0].Name())
	}
}

// TestPidfileThatDangles: a symbolic link to where there is nothing yet is the
// name of the file to be made, as for everybody who opens it.
func TestPidfileThatDangles(t *testing.T) {
	directory := t.TempDir()
	link, target := filepath.Join(directory, "link"), filepath.Join(directory, "target")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	p, err := writePidfile(link)
	if err != nil {
		t.Fatal(err)
	}
	defer p.remove()
	if text, _ := os.ReadFile(target); string(text) != fmt.Sprintf("%d\n", os.Getpid()) {
		t.Errorf("the file has %q", text)
	}
}

func TestPidfileOfSomebodyElse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.pid")
	p, err := writePidfile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p.remove()
	if _, err := os.Stat(path); err != nil {
		t.Error("removed the file that somebody else has put there:", err)
	}
}

func TestStateFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(path, []byte(strings.Repeat("left behind\n", 99)), 0o644); err != nil {
		t.Fatal(err)
	}
	state, err := writeState(path)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(path)
	directory, _ := os.Getwd()
	if want := fmt.Sprintf("---\npid: %d\nrunning_from: %q\n", os.Getpid(), directory); string(text) != want {
		t.Errorf("the file has %q, want %q", text, want)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, error %v; want 0600", info.Mode(), err)
	}
	state.remove()
	if _, err := os.Stat(path); err == nil {
		t.Error("the file is still there")
	}
}

// TestStateFileOfOneThatRuns: a second start by mistake, which fails a moment
// later because the port is in use, must not take away the file through which
// the first server is told to stop.
func TestStateFileOfOneThatRuns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	first, err := writeState(path)
	if err != nil {
		t.Fatal(err)
	}
	defer first.remove()
	second := Config{Binds: []string{"tcp://127.0.0.1:0"}, StateFile: path, Logger: slog.New(slog.DiscardHandler)}
	err = Run(t.Context(), second, App{Handler: func(*Worker) (http.Handler, error) { return nil, errors.New("no place") }})
	if want := fmt.Sprintf("state file: %s: a process is using it (pid %d)", path, os.Getpid()); err == nil || err.Error() != want {
		t.Errorf("the second one ended with %v, want %s", err, want)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error("the second one has removed the file of the first:", err)
	}
}
