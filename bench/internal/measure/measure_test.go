package measure

import (
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

func TestParseSmaps(t *testing.T) {
	m, err := parseSmaps("00400000-7ffd ---p 00000000 00:00 0  [rollup]\nRss:    1536 kB\nPss:    1024 kB\nPss_Dirty: 9 kB\nAnonymous:   512 kB\n")
	if err != nil || m != (Memory{RSS: 1536 << 10, PSS: 1 << 20, Anonymous: 512 << 10}) {
		t.Errorf("%+v, error %v", m, err)
	}
	for _, text := range []string{"", "Rss: 1 kB\n", "Rss: 1 kB\nPss: x kB\nAnonymous: 1 kB\n"} {
		if _, err := parseSmaps(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func TestParseStat(t *testing.T) {
	s, err := parseStat("123 (a (b) c) S 45 123 123 0 -1 4194560 1 2 3 4 567 89 0 0 20 0 5 0 100\n")
	if err != nil || s != (stat{pid: 123, parent: 45, user: 567, system: 89}) {
		t.Errorf("%+v, error %v", s, err)
	}
	for _, text := range []string{"", "1 (x) S 1", "x (x) S 1 2 3 4 5 6 7 8 9 10 11 12 13", "1 (x) S 1 2 3 4 5 6 7 8 9 10 u 12 13"} {
		if _, err := parseStat(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

// TestUsageOf: the parts of a difference add up to its exact total.
func TestUsageOf(t *testing.T) {
	before, err := UsageOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); time.Since(start) < 30*time.Millisecond; {
	}
	after, err := UsageOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if d := after.Sub(before); d.Total < time.Millisecond || d.Total != d.User+d.System && d.User+d.System != 0 {
		t.Errorf("%+v after 30 ms of work", d)
	}
}

// TestWithout: a process that has ended took its CPU time with it, one that has
// begun did not.
func TestWithout(t *testing.T) {
	before, after := Usage{Processes: []int{1, 2, 3}}, Usage{Processes: []int{4, 1, 3}}
	if got := after.Without(before); !slices.Equal(got, []int{2}) {
		t.Errorf("%v ended, want 2", got)
	}
}

// TestTree: what a server starts is charged to it.
func TestTree(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	pids, err := Tree(os.Getpid())
	if err != nil || !slices.Contains(pids, cmd.Process.Pid) || !slices.Contains(pids, os.Getpid()) {
		t.Errorf("%v, error %v, without %d or its parent", pids, err, cmd.Process.Pid)
	}
	if m, err := MemoryOf(os.Getpid()); err != nil || m.PSS <= 0 || m.RSS < m.PSS {
		t.Errorf("memory %+v, error %v", m, err)
	}
}

func TestCPUModel(t *testing.T) {
	if got := cpuModel("processor\t: 0\nmodel name\t: Fast One @ 3 GHz\nmodel name\t: other\n"); got != "Fast One @ 3 GHz" {
		t.Errorf("%q", got)
	}
	if got := cpuModel("processor : 0\n"); got != "unknown" {
		t.Errorf("%q", got)
	}
}

func TestParseBusy(t *testing.T) {
	const text = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 1 1 1 1 1 1 1 0 0\ncpu1 10 20 30 5000 6000 40 50 60 7 8\nintr 5\n"
	if got, err := parseBusy(text, 1); err != nil || got != 2100*time.Millisecond {
		t.Errorf("%v, error %v, want 2.1 s", got, err)
	}
	for _, wrong := range []string{"", "cpu1 1 2\n", "cpu1 a b c d e f g h i j\n"} {
		if _, err := parseBusy(wrong, 1); err == nil {
			t.Errorf("%q was accepted", wrong)
		}
	}
	if got, err := BusyTime(0); err != nil || got <= 0 {
		t.Errorf("%v, error %v", got, err)
	}
}
