package cluster

import (
	"bytes"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
)

// limits are what the machine and the control groups allow this process and
// its children together.
type limits struct {
	cpus   float64
	memory int64 // bytes; math.MaxInt64: as much as there is
}

const (
	// memoryOfMaster is put aside for the master itself.
	memoryOfMaster = 32 << 20
	// leastMemory is the least limit that a worker gets: with less, the garbage
	// collector would do nothing else.
	leastMemory = 64 << 20
)

// share is a worker's part of the limits, as variables of its environment.
// What the user has set wins. memory is whether it has GOMEMLIMIT.
func (l limits) share(env []string, workers int, preloaded int64) (variables []string, memory bool) {
	if !has(env, "GOMAXPROCS") {
		n := max(1, int(math.Round(l.cpus/float64(workers))))
		variables = append(variables, "GOMAXPROCS="+strconv.Itoa(n))
	}
	if !has(env, "GOMEMLIMIT") && l.memory != math.MaxInt64 {
		// A tenth for what the Go runtime does not count, and one more worker,
		// for while one is replaced.
		each := (l.memory/10*9 - preloaded - memoryOfMaster) / int64(workers+1)
		variables = append(variables, "GOMEMLIMIT="+strconv.FormatInt(max(each, leastMemory), 10))
		memory = true
	}
	return variables, memory
}

func has(env []string, name string) bool {
	for _, variable := range env {
		if value, ok := strings.CutPrefix(variable, name+"="); ok && value != "" {
			return true
		}
	}
	return false
}

func readLimits() limits {
	l := limits{cpus: float64(runtime.NumCPU()), memory: math.MaxInt64}
	for _, g := range controlGroups(os.DirFS("/")) {
		l.restrict(os.DirFS("/"), g)
	}
	return l
}

// controlGroup is a group that this process is in, by the folder that has its
// files, and the folder of the outermost group that can be seen.
type controlGroup struct {
	version     int
	controllers []string // of version 1
	folder, top string   // below the root, without the slash in front
}

// controlGroups finds the groups by /proc/self/cgroup, and where they are
// mounted by /proc/self/mountinfo (cgroups(7), proc(5)).
func controlGroups(root fs.FS) []controlGroup {
	table, _ := fs.ReadFile(root, "proc/self/mountinfo")
	lines, _ := fs.ReadFile(root, "proc/self/cgroup")
	var groups []controlGroup
	for line := range strings.Lines(string(lines)) {
		// 0::/path, or 4:memory,cpu:/path
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		g := controlGroup{version: 2}
		if fields[1] != "" {
			g.version, g.controllers = 1, strings.Split(fields[1], ",")
		}
		for mount := range strings.Lines(string(table)) {
			if g.locate(mount, fields[2]) {
				groups = append(groups, g)
				break
			}
		}
	}
	return groups
}

// locate finds the folder of a group if the line of mountinfo is the mount of
// its hierarchy: "36 35 0:30 /root /mount/point options - cgroup2 source super".
func (g *controlGroup) locate(mount, name string) bool {
	left, right, ok := strings.Cut(mount, " - ")
	fields, kind := strings.Fields(left), strings.Fields(right)
	if !ok || len(fields) < 5 || len(kind) < 3 {
		return false
	}
	if g.version == 2 {
		ok = kind[0] == "cgroup2"
	} else {
		ok = kind[0] == "cgroup" && overlap(g.controllers, strings.Split(kind[2], ","))
	}
	if !ok {
		return false
	}
	// What is mounted may be a group below the hierarchy's root. A container
	// may see the names of the host, or ones below its own group.
	inside := strings.TrimPrefix(name, strings.TrimSuffix(fields[3], "/"))
	g.top = strings.TrimPrefix(fields[4], "/")
	g.folder = path.Join(g.top, inside)
	return true
}

func overlap(a, b []string) bool {
	for _, x := range a {
		for _, y := range b {
			if x == y {
				return true
			}
		}
	}
	return false
}

// restrict lowers the limits to those of a group and of the groups around it.
func (l *limits) restrict(root fs.FS, g controlGroup) {
	for folder := g.folder; ; folder = path.Dir(folder) {
		if g.version == 2 {
			if words := readWords(root, folder, "cpu.max"); len(words) == 2 {
				l.restrictCPU(words[0], words[1])
			}
			l.restrictMemory(readWords(root, folder, "memory.max"))
		} else {
			quota, period := readWords(root, folder, "cpu.cfs_quota_us"), readWords(root, folder, "cpu.cfs_period_us")
			if len(quota) == 1 && len(period) == 1 {
				l.restrictCPU(quota[0], period[0])
			}
			l.restrictMemory(readWords(root, folder, "memory.limit_in_bytes"))
		}
		if folder == g.top || folder == "." || len(folder) < len(g.top) {
			return
		}
	}
}

func (l *limits) restrictCPU(quota, period string) {
	q, err1 := strconv.ParseFloat(quota, 64) // "max" and -1 are no limits
	p, err2 := strconv.ParseFloat(period, 64)
	if err1 == nil && err2 == nil && q > 0 && p > 0 {
		l.cpus = min(l.cpus, q/p)
	}
}

func (l *limits) restrictMemory(words []string) {
	if len(words) != 1 {
		return
	}
	// Version 1 says "no limit" with the largest multiple of a page.
	if n, err := strconv.ParseInt(words[0], 10, 64); err == nil && n > 0 && n < math.MaxInt64-1<<20 {
		l.memory = min(l.memory, n)
	}
}

func readWords(root fs.FS, folder, name string) []string {
	text, err := fs.ReadFile(root, path.Join(folder, name))
	if err != nil {
		return nil
	}
	return strings.Fields(string(text))
}

// killedForMemory sums what the groups of this process count.
func killedForMemory() uint64 { return oomKills(os.DirFS("/")) }

func oomKills(root fs.FS) (sum uint64) {
	for _, g := range controlGroups(root) {
		for _, name := range []string{"memory.events", "memory.oom_control"} {
			text, _ := fs.ReadFile(root, path.Join(g.folder, name))
			for line := range bytes.Lines(text) {
				if number, ok := bytes.CutPrefix(line, []byte("oom_kill ")); ok {
					n, _ := strconv.ParseUint(string(bytes.TrimSpace(number)), 10, 64)
					sum += n
				}
			}
		}
	}
	return sum
}

// privateMemory is a process's anonymous memory: memory that it shares with
// others (preloaded data, the program) does not count, for it would not come
// back if the process ended. It is 0 when it cannot be known, as in a namespace
// of pids whose /proc is another's.
func privateMemory(pid int) int64 {
	if self, err := os.Readlink("/proc/self"); err != nil || self != strconv.Itoa(os.Getpid()) {
		return 0
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(text) {
		if number, ok := bytes.CutPrefix(line, []byte("RssAnon:")); ok {
			n, _ := strconv.ParseInt(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(number), []byte("kB")))), 10, 64)
			return n << 10
		}
	}
	return 0
}
