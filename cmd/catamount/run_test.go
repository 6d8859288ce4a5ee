package main

import (
	"bytes"
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
		{[]string{"serve", "-b", "tcp://localhost:1?backlog=none"}, 2, "", "for flag -b: backlog"},
		{[]string{"serve", "-b", "tcp://localhost:1?prowl=5"}, 2, "", "for flag -b: unknown option \"prowl\""},
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
