package catamount

import (
	"errors"
	"flag"
	"strings"
	"testing"
)

func TestParseFlags(t *testing.T) {
	for _, c := range []struct {
		args, env string
		binds     string
		workers   int
		min, max  int
		queue     bool
	}{
		{"", "", "", 0, 0, 0, true},
		{"-p 0", "", "tcp://127.0.0.1:0", 0, 0, 0, true},
		{"-t 5 -w 3", "", "", 3, 5, 5, true},
		{"-t 0:16 --queue-requests=false", "", "", 0, 0, 16, false},
		{"--threads 2:3 --workers auto", "", "", AutoWorkers, 2, 3, true},
		{"-b tcp://[::1]:80 -p 81 --bind unix:///run/x.sock -b tcp://:82 -b unix://@cat", "",
			"tcp://[::1]:80 tcp://127.0.0.1:81 unix:///run/x.sock tcp://:82 unix://@cat", 0, 0, 0, true},
		{"", "PORT=81 WEB_CONCURRENCY=2 MIN_THREADS=1 MAX_THREADS=9", "tcp://127.0.0.1:81", 2, 1, 9, true},
		{"", "WEB_CONCURRENCY=auto", "", AutoWorkers, 0, 0, true},
		{"", "PORT= WEB_CONCURRENCY= MIN_THREADS= MAX_THREADS=", "", 0, 0, 0, true},
		{"", "PORT=\t WEB_CONCURRENCY=\t MIN_THREADS=\t MAX_THREADS=\t", "", 0, 0, 0, true},
		{"", "PORT=81\t WEB_CONCURRENCY=2\t MIN_THREADS=1\t MAX_THREADS=\t9", "tcp://127.0.0.1:81", 2, 1, 9, true},
		{"-p 82 -w 0 -t 4", "PORT=81 WEB_CONCURRENCY=2 MIN_THREADS=1 MAX_THREADS=9", "tcp://127.0.0.1:82", 0, 4, 4, true},
	} {
		cfg, err := ParseFlags(strings.Fields(c.args), environment(c.env), Config{DefaultHost: "127.0.0.1"})
		if err != nil {
			t.Errorf("%q %q: %v", c.args, c.env, err)
			continue
		}
		low, high, queue := cfg.Server.MinThreads, cfg.Server.MaxThreads, cfg.Server.QueueRequests == nil || *cfg.Server.QueueRequests
		if got := strings.Join(cfg.Binds, " "); got != c.binds || cfg.Workers != c.workers || low != c.min || high != c.max || queue != c.queue {
			t.Errorf("%q %q: binds %s, %d workers, threads %d:%d, queue %t; want %s, %d, %d:%d, %t",
				c.args, c.env, got, cfg.Workers, low, high, queue, c.binds, c.workers, c.min, c.max, c.queue)
		}
		if err := cfg.Validate(); err != nil {
			t.Errorf("%q %q: %v", c.args, c.env, err)
		}
	}
}

func environment(text string) func(string) string {
	variables := make(map[string]string)
	for _, word := range strings.Split(text, " ") {
		name, value, _ := strings.Cut(word, "=")
		variables[name] = value
	}
	return func(name string) string { return variables[name] }
}

func TestParseFlagsOfText(t *testing.T) {
	cfg, err := ParseFlags(strings.Fields("-q -v -S state --pidfile pid --tag shop --dir /srv"), environment(""), Config{})
	if err != nil {
		t.Fatal(err)
	}
	if !cfg.Quiet || !cfg.LogRequests || cfg.StateFile != "state" || cfg.Pidfile != "pid" || cfg.Tag != "shop" || cfg.Directory != "/srv" {
		t.Errorf("%+v", cfg)
	}
	if _, err := ParseFlags([]string{"-h"}, environment(""), Config{}); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-h: %v", err)
	}
	if _, err := ParseFlags([]string{"-V"}, environment(""), Config{}); !errors.Is(err, ErrVersion) {
		t.Errorf("-V: %v", err)
	}
}

func TestWrongFlags(t *testing.T) {
	for _, c := range []struct{ args, env, want string }{
		{"-w -1", "", `"-1" for flag -w`},
		{"-w many", "", `"many" for flag -w: want a number of workers or "auto"`},
		{"-b http://x:1", "", "for flag -b"},
		{"--pidfile", "", "needs an argument: -pidfile"},
		{"serve", "", `unexpected argument "serve"`},
		{"", "PORT=http", `"http" of the environment variable PORT: want a port`},
		{"", "WEB_CONCURRENCY=x", `"x" of the environment variable WEB_CONCURRENCY`},
		{"", "MIN_THREADS=-1", `"-1" of the environment variable MIN_THREADS`},
		{"", "MAX_THREADS=0", `"0" of the environment variable MAX_THREADS`},
	} {
		_, err := ParseFlags(strings.Fields(c.args), environment(c.env), Config{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q %q: error %v, want %q in it", c.args, c.env, err, c.want)
		}
	}
}
