package main

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/catamount-server/catamount"
)

func TestRun(t *testing.T) {
	long := "unix:///" + strings.Repeat("x", 107)
	for _, c := range []struct {
		args           []string
		code           int
		stdout, stderr string // substrings; "" means nothing at all
	}{
		{[]string{"version"}, 0, "catamount " + catamount.Version + " (" + runtime.Version(), ""},
		{[]string{"--version"}, 0, "catamount " + catamount.Version, ""},
		{[]string{"help"}, 0, "Commands:", ""},
		{[]string{"-h"}, 0, "Commands:", ""},
		{[]string{"serve", "-h"}, 0, "--queue-requests", ""},
		{[]string{"serve", "--help"}, 0, "--queue-requests", ""},
		{nil, 2, "", "Usage: catamount <command>"},
		{[]string{"prowl"}, 2, "", `unknown command "prowl"`},
		{[]string{"serve", "--prowl"}, 2, "", "not defined: -prowl"},
		{[]string{"serve", "-b"}, 2, "", "needs an argument: -b"},
		{[]string{"serve", "-b", "localhost:80"}, 2, "", "for flag -b: want tcp://host:port or unix:///path"},
		{[]string{"serve", "-b", "ssl://localhost:80"}, 2, "", "for flag -b: want tcp://host:port or unix:///path"},
		{[]string{"serve", "--bind", "tcp://localhost"}, 2, "", "for flag -bind: missing port in address"},
		{[]string{"serve", "-b", "tcp://localhost:http"}, 2, "", "for flag -b: want a port from 0 to 65535"},
		{[]string{"serve", "-b", "tcp://localhost:1?backlog=5"}, 2, "", "for flag -b: options after ? are not supported"},
		{[]string{"serve", "-b", "unix://"}, 2, "", "for flag -b: the path of the socket is missing"},
		{[]string{"serve", "-b", long}, 2, "", "for flag -b: the path has 108 bytes, a socket's may have 107"},
		{[]string{"serve", "-p", "65536"}, 2, "", `"65536" for flag -p: want a port from 0 to 65535`},
		{[]string{"serve", "-p", "-1"}, 2, "", "for flag -p: want a port from 0 to 65535"},
		{[]string{"serve", "-t", "4:2"}, 2, "", `"4:2" for flag -t: the minimum 4 is more than the maximum 2`},
		{[]string{"serve", "-t", "0"}, 2, "", "for flag -t: the maximum 0 is less than 1"},
		{[]string{"serve", "-t", "-1:5"}, 2, "", "for flag -t: the minimum -1 is less than 0"},
		{[]string{"serve", "--threads", "many"}, 2, "", "for flag -threads: want MIN:MAX"},
		{[]string{"serve", "-t", "1:"}, 2, "", "for flag -t: want MIN:MAX"},
		{[]string{"serve", "--queue-requests=maybe"}, 2, "", `"maybe" for -queue-requests`},
		{[]string{"serve", "--queue-requests", "false"}, 2, "", `unexpected argument "false"`},
		{[]string{"serve", ""}, 2, "", `unexpected argument ""`},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), c.args, &stdout, &stderr)
		if code != c.code {
			t.Errorf("%q: exit code %d, want %d", c.args, code, c.code)
		}
		for _, s := range []struct{ name, got, want string }{
			{"stdout", stdout.String(), c.stdout},
			{"stderr", stderr.String(), c.stderr},
		} {
			if !strings.Contains(s.got, s.want) || s.want == "" && s.got != "" {
				t.Errorf("%q: %s = %q, want %q in it", c.args, s.name, s.got, s.want)
			}
		}
		if bad := stderr.String(); len(c.args) > 1 && strings.Count(bad, "\n") > 1 {
			t.Errorf("%q: the reason takes more than one line: %q", c.args, bad)
		}
	}
}

func TestParseServe(t *testing.T) {
	for _, c := range []struct {
		args          string
		binds         string
		min, max      int
		queue, silent bool
	}{
		{"", "tcp://127.0.0.1:9292", 0, 256, true, false},
		{"-p 0", "tcp://127.0.0.1:0", 0, 256, true, false},
		{"-t 5", "tcp://127.0.0.1:9292", 5, 5, true, false},
		{"-t 0:16 --queue-requests=false -q", "tcp://127.0.0.1:9292", 0, 16, false, true},
		{"--quiet --threads 2:3", "tcp://127.0.0.1:9292", 2, 3, true, true},
		{"-b tcp://[::1]:80 -p 81 --bind unix:///run/x.sock -b tcp://:82 -b unix://@cat",
			"tcp://[::1]:80 tcp://127.0.0.1:81 unix:///run/x.sock tcp://:82 unix://@cat", 0, 256, true, false},
	} {
		cfg, err := parseServe(strings.Fields(c.args))
		if err != nil {
			t.Errorf("%q: %v", c.args, err)
			continue
		}
		var binds []string
		for _, b := range cfg.binds {
			binds = append(binds, b.String())
		}
		if got := strings.Join(binds, " "); got != c.binds {
			t.Errorf("%q: binds %s, want %s", c.args, got, c.binds)
		}
		if cfg.minThreads != c.min || cfg.maxThreads != c.max || cfg.queueRequests != c.queue || cfg.quiet != c.silent {
			t.Errorf("%q: %+v", c.args, cfg)
		}
		s := cfg.server()
		if s.MinThreads != c.min || s.MaxThreads != c.max || *s.QueueRequests != c.queue {
			t.Errorf("%q: server %d:%d, queue %t", c.args, s.MinThreads, s.MaxThreads, *s.QueueRequests)
		}
	}
}

func TestBanner(t *testing.T) {
	cfg := config{minThreads: 2, maxThreads: 7, queueRequests: true}
	var got bytes.Buffer
	printBanner(&got, cfg, []string{"http://127.0.0.1:9292", "unix:///run/x.sock"}, 1234)
	want := `Catamount starting in single mode...
* Catamount version: ` + catamount.Version + ` (` + runtime.Version() + `)
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
	printBanner(&got, config{}, nil, 1)
	if want := "*  Mode: blocking (queue_requests off)\n"; !strings.Contains(got.String(), want) {
		t.Errorf("banner of blocking mode lacks %q:\n%s", want, got.String())
	}
}

func TestAnnounce(t *testing.T) {
	for _, quiet := range []bool{false, true} {
		cfg := config{quiet: quiet}
		var stdout, stderr bytes.Buffer
		logger := newLogger(cfg, &stderr)
		announce(cfg, []string{"http://a", "http://b"}, &stdout, logger)
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

func TestRemoveStale(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "cat.sock")

	if err := removeStale(name); err != nil {
		t.Errorf("no file: %v", err)
	}

	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if err := removeStale(name); err == nil || !strings.Contains(err.Error(), "already a server") {
		t.Errorf("living server: %v, want a refusal", err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if err := removeStale(name); err != nil {
		t.Errorf("dead server: %v", err)
	}
	if _, err := os.Lstat(name); err == nil {
		t.Error("the dead server's socket is still there")
	}

	plain := filepath.Join(dir, "file")
	if err := os.WriteFile(plain, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := removeStale(plain); err == nil {
		t.Error("an ordinary file was taken for a stale socket")
	}
	if _, err := os.Lstat(plain); err != nil {
		t.Errorf("an ordinary file was removed: %v", err)
	}
}
