package main

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test program be the server and client processes that it
// starts, as compare does.
func TestMain(m *testing.M) {
	if slices.Contains(os.Args[1:], "-serve") || slices.Contains(os.Args[1:], "-client") {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestSeries(t *testing.T) {
	for _, c := range []struct {
		s    series
		want string
	}{
		{series{3, 1, 2}, "2.00 (1.00–3.00)"},
		{series{4, 1, 2, 3}, "2.50 (1.00–4.00)"},
		{series{7}, "7.00 (7.00–7.00)"},
		{nil, "–"},
	} {
		if got := c.s.format(2); got != c.want {
			t.Errorf("%v: %s, want %s", c.s, got, c.want)
		}
	}
	// Paired by round: the median of the ratios, not the ratio of the medians.
	if got := (series{1, 20, 9}).over(series{2, 10, 3}); !slices.Equal(got, series{0.5, 2, 3}) {
		t.Errorf("ratios %v, want [0.5 2 3]", got)
	}
}

func TestParseWrk(t *testing.T) {
	const whole = `Running 2s test @ http://127.0.0.1:9292/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   630.35us   80.01us   5.96ms   94.62%
    Req/Sec   101.50k     3.07k  106.45k    90.00%
  201994 requests in 2.00s, 25.04MB read
`
	r, err := parseWrk(whole + "Requests/sec: 100906.91\n")
	if err != nil || r != (result{requests: 201994, seconds: 2}) || r.clean() != nil {
		t.Errorf("%+v, error %v", r, err)
	}
	r, err = parseWrk(whole + "  Socket errors: connect 1, read 20, write 300, timeout 4000\n  Non-2xx or 3xx responses: 5\n")
	want := result{requests: 201994, seconds: 2, broken: 321, timeouts: 4000, bad: 5}
	if err != nil || r != want || r.clean() == nil {
		t.Errorf("%+v, error %v, want %+v, which is not clean", r, err, want)
	}
	if r, err := parseWrk("  120 requests in 1.50m, 25.04MB read\n"); err != nil || r.seconds != 90 {
		t.Errorf("a minute and a half: %+v, error %v", r, err)
	}
	if _, err := parseWrk("unable to connect to 127.0.0.1:1"); err == nil {
		t.Error("wrk without a total was accepted")
	}
}

func TestParseSmaps(t *testing.T) {
	m, err := parseSmaps("00400000-7ffd ---p 00000000 00:00 0  [rollup]\nRss:    1536 kB\nPss:    1024 kB\nPss_Dirty: 9 kB\nAnonymous:   512 kB\n")
	if err != nil || m != (memory{rss: 1536 << 10, pss: 1 << 20, anonymous: 512 << 10}) {
		t.Errorf("%+v, error %v", m, err)
	}
	if _, err := parseSmaps("Rss: 1 kB\n"); err == nil {
		t.Error("smaps without Pss was accepted")
	}
}

// TestBlockingKeepsNone: what is not there costs no memory, and must not be
// reported as cheap.
func TestBlockingKeepsNone(t *testing.T) {
	s := settings{servers: []string{"catamount-blocking"}, rounds: 1, threads: 2, idle: 5}
	if err := measureIdle(s, new(bytes.Buffer)); err == nil {
		t.Error("connections that the server had closed were measured as idle")
	}
}

// TestIdle runs the whole of a small measurement with every server that keeps
// connections.
func TestIdle(t *testing.T) {
	names := []string{"catamount", "fasthttp", "nethttp"}
	var out bytes.Buffer
	if err := measureIdle(settings{servers: names, rounds: 1, threads: 2, idle: 20}, &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, name := range names {
		if !strings.Contains(out.String(), "\n"+name+" ") {
			t.Errorf("no line for %s:\n%s", name, &out)
		}
	}
}

func TestSlowClients(t *testing.T) {
	srv, err := startServer("nethttp", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer srv.stop()
	slow, opened, err := startClients("slow", srv.addr, 30)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.stop()
	if opened != 30 {
		t.Errorf("%d slow clients are connected, want 30", opened)
	}
	if got, err := slow.clientState(); got.alive != 30 || got.closed != 0 || got.cpu <= 0 || err != nil {
		t.Errorf("%+v, error %v; want 30 alive, 0 closed, some CPU", got, err)
	}
}

func TestCPU(t *testing.T) {
	if _, err := exec.LookPath("wrk"); err != nil {
		t.Skip("no wrk to make the load")
	}
	var out bytes.Buffer
	s := settings{
		servers: []string{"nethttp", "fasthttp"}, threads: 1,
		rounds: 1, duration: time.Second, warmup: time.Second, conns: 2, pipeline: 2,
	}
	if err := measureCPU(s, &out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "nethttp / fasthttp = ") {
		t.Errorf("no ratio:\n%s", &out)
	}
}

func TestRefusals(t *testing.T) {
	for _, args := range []string{"-servers nginx", "-rounds 0", "-d 10ms", "-idle -1", "-idle 1 -slow 1", "stray", "-serve nginx", "-client angry -target 127.0.0.1:1"} {
		if err := run(strings.Fields(args), new(bytes.Buffer)); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}
