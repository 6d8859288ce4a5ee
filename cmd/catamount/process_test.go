package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain makes the test program stand in for the real one, so that the tests
// below see whole processes: their signals, exit codes and output.
func TestMain(m *testing.M) {
	if os.Getenv("CATAMOUNT_TEST_MAIN") == "1" {
		main()
		return
	}
	os.Exit(m.Run())
}

// A process is a running "catamount serve".
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines *bufio.Scanner // of stderr
	binds []string       // what it listens on, as URLs
}

// start runs "catamount serve" with args and waits until it listens.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], append([]string{"serve"}, args...)...)
	cmd.Env = append(os.Environ(), "CATAMOUNT_TEST_MAIN=1")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: cmd, lines: bufio.NewScanner(stderr)}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	var record struct{ Binds []string }
	if err := json.Unmarshal([]byte(p.waitFor(`"msg":"Listening on `)), &record); err != nil {
		t.Fatal(err)
	}
	p.binds = record.Binds
	return p
}

// waitFor reads stderr up to the next line that contains s, and returns it.
func (p *process) waitFor(s string) string {
	p.t.Helper()
	var seen []string
	for p.lines.Scan() {
		if strings.Contains(p.lines.Text(), s) {
			return p.lines.Text()
		}
		seen = append(seen, p.lines.Text())
	}
	p.t.Fatalf("stderr ended without %q:\n%s", s, strings.Join(seen, "\n"))
	return ""
}

func (p *process) signal(sig os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// wantExit reads what is left of stderr and checks the exit code.
func (p *process) wantExit(code int) {
	p.t.Helper()
	var rest []string
	for p.lines.Scan() {
		rest = append(rest, p.lines.Text())
	}
	p.cmd.Wait()
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		p.t.Errorf("exit: %v, want code %d; stderr:\n%s", p.cmd.ProcessState, code, strings.Join(rest, "\n"))
	}
}

// get asks for path at the process's bind, by its index.
func (p *process) get(bind int, path string) *http.Response {
	p.t.Helper()
	url, transport := p.binds[bind], &http.Transport{}
	if socket, ok := strings.CutPrefix(url, "unix://"); ok {
		url = "http://socket"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}
	}
	p.t.Cleanup(transport.CloseIdleConnections)
	resp, err := (&http.Client{Transport: transport}).Get(url + path)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// wantInfo does one whole request and checks who answered.
func (p *process) wantInfo(bind int) {
	p.t.Helper()
	resp := p.get(bind, "/info")
	var info struct{ PID int }
	if err := json.NewDecoder(resp.Body).Decode(&info); err != nil {
		p.t.Fatal(err)
	}
	if resp.StatusCode != 200 || info.PID != p.cmd.Process.Pid {
		p.t.Errorf("status %d from pid %d, want 200 from %d", resp.StatusCode, info.PID, p.cmd.Process.Pid)
	}
}

func TestServeUntilSignal(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			p := start(t, "-p", "0")
			if strings.HasSuffix(p.binds[0], ":0") {
				t.Errorf("listens on %s: the real port is missing", p.binds[0])
			}
			p.wantInfo(0)
			p.signal(sig)
			p.waitFor("Goodbye!")
			p.wantExit(0)
		})
	}
}

func TestServeSeveralBinds(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "cat.sock")
	p := start(t, "-b", "tcp://127.0.0.1:0", "-b", "unix://"+socket, "-t", "2", "--queue-requests=false")
	p.wantInfo(0)
	p.wantInfo(1)
	p.signal(syscall.SIGTERM)
	p.wantExit(0)
	if _, err := os.Lstat(socket); err == nil {
		t.Error("the socket is still there after the end")
	}
}

// startStream begins a stream of lines and returns when the handler runs.
func (p *process) startStream(lines string) *bufio.Reader {
	p.t.Helper()
	body := bufio.NewReader(p.get(0, "/stream?n="+lines).Body)
	if line, err := body.ReadString('\n'); err != nil || !strings.HasPrefix(line, "line 1 of ") {
		p.t.Fatalf("first line %q, error %v", line, err)
	}
	return body
}

func TestGracefulStop(t *testing.T) {
	p := start(t, "-p", "0")
	body := p.startStream("3")
	p.signal(syscall.SIGTERM)
	rest, err := io.ReadAll(body)
	if err != nil || !strings.Contains(string(rest), "line 3 of 3") {
		t.Errorf("the running request got %q, error %v; want the rest of its answer", rest, err)
	}
	p.wantExit(0)
}

func TestSecondSignalStopsAtOnce(t *testing.T) {
	p := start(t, "-p", "0")
	body := p.startStream("600") // two minutes
	p.signal(syscall.SIGTERM)
	p.waitFor("Gracefully stopping")
	p.signal(syscall.SIGINT)
	if _, err := io.ReadAll(body); err == nil {
		t.Error("the running request ended as if it were whole")
	}
	p.wantExit(0)
}

// TestSignalsAroundThePidfile: from the moment that somebody can read a pidfile
// until there is none any more, signals mean what they should. Each try meets
// another moment.
func TestSignalsAroundThePidfile(t *testing.T) {
	for _, workers := range []string{"0", "1"} {
		t.Run("workers "+workers, func(t *testing.T) {
			for range 12 {
				pidfile := filepath.Join(t.TempDir(), "pid")
				cmd := exec.CommandContext(t.Context(), os.Args[0], "serve", "-p", "0", "-w", workers, "--pidfile", pidfile)
				cmd.Env = append(os.Environ(), "CATAMOUNT_TEST_MAIN=1")
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				ended := make(chan struct{})
				go func() { defer close(ended); cmd.Wait() }()
				for isThere := false; !isThere; {
					_, err := os.Stat(pidfile)
					isThere = err == nil
				}
				for isThere := true; isThere; { // one who cannot wait
					cmd.Process.Signal(syscall.SIGTERM)
					select {
					case <-ended:
						isThere = false
					case <-time.After(200 * time.Microsecond):
						_, err := os.Stat(pidfile)
						isThere = err == nil
					}
				}
				<-ended
				if _, err := os.Stat(pidfile); err == nil {
					t.Fatalf("the pidfile is still there; %v", cmd.ProcessState)
				}
			}
		})
	}
}

func TestQuitDumpsAndGoesOn(t *testing.T) {
	p := start(t, "-p", "0")
	p.signal(syscall.SIGQUIT)
	p.waitFor("goroutine 1 [")
	p.wantInfo(0)
	p.signal(syscall.SIGTERM)
	p.wantExit(0)
}

func TestCannotListen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "serve", "-b", "tcp://"+l.Addr().String())
	cmd.Env = append(os.Environ(), "CATAMOUNT_TEST_MAIN=1")
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if text := string(out); strings.Count(text, "\n") != 1 || !strings.Contains(text, "address already in use") ||
		!strings.Contains(text, l.Addr().String()) {
		t.Errorf("output %q, want one line with the address and the reason", text)
	}
}
