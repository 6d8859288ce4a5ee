package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain makes the test program the shop, when it is told to.
func TestMain(m *testing.M) {
	if os.Getenv("EXAMPLE_CLUSTER") != "" {
		main()
	}
	os.Exit(m.Run())
}

// shop is a running master with its workers.
type shop struct {
	t   *testing.T
	cmd *exec.Cmd
	log *bufio.Scanner
	url string
}

func start(t *testing.T) *shop {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-w", "2", "-b", "tcp://127.0.0.1:0")
	cmd.Env = append(os.Environ(), "EXAMPLE_CLUSTER=1")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &shop{t: t, cmd: cmd, log: bufio.NewScanner(stderr)}
	watchdog := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		for s.log.Scan() {
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the shop ended with %v", err)
		}
		watchdog.Stop()
	})
	var listening struct{ Binds []string }
	if err := json.Unmarshal([]byte(s.await("Listening on")), &listening); err != nil {
		t.Fatal(err)
	}
	s.url = listening.Binds[0]
	s.await("all workers booted")
	return s
}

func (s *shop) await(text string) string {
	s.t.Helper()
	for s.log.Scan() {
		if strings.Contains(s.log.Text(), text) {
			return s.log.Text()
		}
	}
	s.t.Fatalf("the log has ended without %q", text)
	return ""
}

func (s *shop) get(path string) (status int, body string) {
	s.t.Helper()
	answer, err := http.Get(s.url + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

func TestShop(t *testing.T) {
	s := start(t)
	if status, body := s.get("/"); status != 200 || !strings.Contains(body, "A shop of several workers") {
		t.Errorf("/: %d %q", status, body)
	}
	if status, body := s.get("/price/puma"); status != 200 || !strings.HasPrefix(body, "1000, ") {
		t.Errorf("/price/puma: %d %q", status, body)
	}
	if status, _ := s.get("/price/dog"); status != 404 {
		t.Errorf("/price/dog: %d", status)
	}
	answer, err := http.Get(s.url + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if err := s.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if events, err := io.ReadAll(answer.Body); err != nil || !strings.Contains(string(events), "event: goodbye") {
		t.Errorf("the stream ended with %v: %q", err, events)
	}
	s.await("phased restart complete")
	if status, body := s.get("/price/lynx"); status != 200 || !strings.Contains(body, "asked for 2 times") {
		t.Errorf("after a restart /price/lynx: %d %q, want the count to go on", status, body)
	}
}
