package measure

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tick is USER_HZ, the same on every machine that Linux runs on today.
const tick = time.Second / 100

// Usage is the CPU time of some processes since their start. Total is exact to
// the nanosecond; how it parts into User and System the kernel samples.
type Usage struct {
	Total, User, System time.Duration
	Processes           []int
}

// Sub returns what was used between before and u. The parts are scaled to the
// exact total.
func (u Usage) Sub(before Usage) Usage {
	d := Usage{Total: u.Total - before.Total, User: u.User - before.User, System: u.System - before.System}
	if parts := d.User + d.System; parts > 0 {
		d.User = time.Duration(float64(d.Total) * float64(d.User) / float64(parts))
		d.System = d.Total - d.User
	}
	return d
}

// Without returns the processes of before that are not in u. What they have used
// since is unknown, so that a difference would be too small.
func (u Usage) Without(before Usage) []int {
	return slices.DeleteFunc(slices.Clone(before.Processes), func(pid int) bool { return slices.Contains(u.Processes, pid) })
}

// UsageOf adds up the process pid and all its descendants.
func UsageOf(pid int) (Usage, error) {
	var sum Usage
	pids, err := Tree(pid)
	if err != nil {
		return sum, err
	}
	for _, pid := range pids {
		u, err := usageOfOne(pid)
		if os.IsNotExist(err) || err == unix.ESRCH || err == unix.EINVAL {
			continue // ended meanwhile
		}
		if err != nil {
			return sum, fmt.Errorf("CPU time of process %d: %w", pid, err)
		}
		sum.Total += u.Total
		sum.User += u.User
		sum.System += u.System
		sum.Processes = append(sum.Processes, pid)
	}
	return sum, nil
}

func usageOfOne(pid int) (Usage, error) {
	// The clock of another process, clock_getcpuclockid(3): ^pid << 3 | CPUCLOCK_SCHED.
	var now unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &now); err != nil {
		return Usage{}, err
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Usage{}, err
	}
	s, err := parseStat(string(text))
	return Usage{Total: time.Duration(now.Nano()), User: time.Duration(s.user) * tick, System: time.Duration(s.system) * tick}, err
}

// Tree returns pid and its descendants.
func Tree(pid int) ([]int, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // ended meanwhile
		}
		s, err := parseStat(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		children[s.parent] = append(children[s.parent], s.pid)
	}
	tree := []int{pid}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	return tree, nil
}

// stat is what the bench needs of /proc/PID/stat; times are in ticks.
type stat struct {
	pid, parent  int
	user, system int64
}

// parseStat reads proc_pid_stat(5). The name, in parentheses, may hold
// anything.
func parseStat(text string) (s stat, err error) {
	before, after, ok := cutLast(text, ") ")
	fields := strings.Fields(after)
	if !ok || len(fields) < 13 {
		return s, fmt.Errorf("stat: too short: %q", text)
	}
	id, _, _ := strings.Cut(before, " ")
	if s.pid, err = strconv.Atoi(id); err != nil {
		return s, fmt.Errorf("stat: pid: %w", err)
	}
	if s.parent, err = strconv.Atoi(fields[1]); err != nil {
		return s, fmt.Errorf("stat: parent: %w", err)
	}
	if s.user, err = strconv.ParseInt(fields[11], 10, 64); err != nil {
		return s, fmt.Errorf("stat: user time: %w", err)
	}
	if s.system, err = strconv.ParseInt(fields[12], 10, 64); err != nil {
		return s, fmt.Errorf("stat: system time: %w", err)
	}
	return s, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
