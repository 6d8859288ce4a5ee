package catamount

import (
	"bytes"
	"os"
	"runtime"
	"strings"
	"testing"
)

func TestBanner(t *testing.T) {
	r := &resolved{server: &Server{MinThreads: 2, MaxThreads: 7}}
	var got bytes.Buffer
	r.printBanner(&got, []string{"http://127.0.0.1:9292", "unix:///run/x.sock"}, 1234)
	want := `Catamount starting in single mode...
* Catamount version: ` + Version + ` (` + runtime.Version() + `)
*  Min threads: 2
*  Max threads: 7
*  Mode: reactor (queue_requests on)
*          PID: 1234
* Listening on http://127.0.0.1:9292
* Listening on unix:///run/x.sock
Use Ctrl-C to stop
`
	if got.String() != want {
		t.Errorf("banner:\n%s\nwant:\n%s", got.String(), want)
	}

	got.Reset()
	(&resolved{server: &Server{QueueRequests: new(false)}, workers: 3}).printBanner(&got, nil, 17)
	for _, want := range []string{
		"Catamount starting in cluster mode...\n", "*  Mode: blocking (queue_requests off)\n",
		"*   Master PID: 17\n", "*      Workers: 3\n", "kill -USR1 17",
	} {
		if !strings.Contains(got.String(), want) {
			t.Errorf("banner of a cluster in blocking mode lacks %q:\n%s", want, got.String())
		}
	}
}

func TestAnnounce(t *testing.T) {
	for _, quiet := range []bool{false, true} {
		r := &resolved{server: new(Server), Config: Config{Quiet: quiet}}
		var stdout, stderr bytes.Buffer
		logger := newLogger(&stderr, quiet)
		r.announce(&stdout, logger, []string{"http://a", "http://b"})
		logger.Warn("trouble")

		if stdout.Len() > 0 {
			t.Errorf("quiet %t: stdout, which is no terminal, got %q", quiet, &stdout)
		}
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		if trouble := lines[len(lines)-1]; !strings.Contains(trouble, `"msg":"trouble"`) {
			t.Errorf("quiet %t: the last line is %q, want the warning as JSON", quiet, trouble)
		}
		if quiet != (len(lines) == 1) {
			t.Errorf("quiet %t: log %q", quiet, lines)
		}
		if !quiet && !strings.Contains(lines[0], `"msg":"Listening on http://a, http://b"`) {
			t.Errorf("first line %q, want where it listens", lines[0])
		}
	}
}

func TestIsTerminal(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if isTerminal(null) || isTerminal(new(bytes.Buffer)) {
		t.Error("/dev/null or a buffer passes for a terminal")
	}
	// A terminal multiplexer is the character device at hand everywhere.
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no terminal to be had: %v", err)
	}
	defer ptmx.Close()
	if !isTerminal(ptmx) {
		t.Error("/dev/ptmx does not pass for a terminal")
	}
}
