package cluster

import (
	"math"
	"os"
	"slices"
	"testing"
	"testing/fstest"
)

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

func TestLimits(t *testing.T) {
	const gib = 1 << 30
	mount2 := "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup rw,nsdelegate\n"
	mounts1 := "31 23 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n" +
		"32 23 0:28 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
	for _, c := range []struct {
		name   string
		files  fstest.MapFS
		cpus   float64
		memory int64
	}{
		{"nothing is known", fstest.MapFS{}, 8, math.MaxInt64},
		{"version 2", fstest.MapFS{
			"proc/self/mountinfo": file(mount2), "proc/self/cgroup": file("0::/app\n"),
			"sys/fs/cgroup/app/cpu.max": file("150000 100000\n"), "sys/fs/cgroup/app/memory.max": file("1073741824\n"),
		}, 1.5, gib},
		{"the groups around it count as well", fstest.MapFS{
			"proc/self/mountinfo": file(mount2), "proc/self/cgroup": file("0::/pod/app\n"),
			"sys/fs/cgroup/pod/app/cpu.max": file("max 100000\n"), "sys/fs/cgroup/pod/app/memory.max": file("4294967296\n"),
			"sys/fs/cgroup/pod/cpu.max": file("200000 100000\n"), "sys/fs/cgroup/pod/memory.max": file("2147483648\n"),
			"sys/fs/cgroup/cpu.max": file("400000 100000\n"),
		}, 2, 2 * gib},
		{"a namespace of its own", fstest.MapFS{
			"proc/self/mountinfo": file(mount2), "proc/self/cgroup": file("0::/\n"),
			"sys/fs/cgroup/memory.max": file("max\n"), "sys/fs/cgroup/cpu.max": file("50000 100000\n"),
		}, 0.5, math.MaxInt64},
		{"version 1", fstest.MapFS{
			"proc/self/mountinfo":                             file(mounts1),
			"proc/self/cgroup":                                file("5:cpu,cpuacct:/grp\n4:memory:/docker/abc/in\n0::/\n"),
			"sys/fs/cgroup/cpu,cpuacct/grp/cpu.cfs_quota_us":  file("300000\n"),
			"sys/fs/cgroup/cpu,cpuacct/grp/cpu.cfs_period_us": file("100000\n"),
			"sys/fs/cgroup/memory/in/memory.limit_in_bytes":   file("9223372036854771712\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes":      file("3221225472\n"),
		}, 3, 3 * gib},
		{"no limits in version 1", fstest.MapFS{
			"proc/self/mountinfo": file(mounts1), "proc/self/cgroup": file("5:cpu,cpuacct:/\n4:memory:/docker/abc\n"),
			"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us":  file("-1\n"),
			"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": file("100000\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes":  file("9223372036854771712\n"),
		}, 8, math.MaxInt64},
		{"nonsense", fstest.MapFS{
			"proc/self/mountinfo": file("30 23\nx - y\n" + mount2), "proc/self/cgroup": file("what\n0::/app\n"),
			"sys/fs/cgroup/app/cpu.max": file("lots\n"), "sys/fs/cgroup/app/memory.max": file("\n"),
		}, 8, math.MaxInt64},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := limits{cpus: 8, memory: math.MaxInt64}
			for _, g := range controlGroups(c.files) {
				l.restrict(c.files, g)
			}
			if l.cpus != c.cpus || l.memory != c.memory {
				t.Errorf("got %g processors and %d bytes, want %g and %d", l.cpus, l.memory, c.cpus, c.memory)
			}
		})
	}
}

func TestShare(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name      string
		limits    limits
		env       []string
		workers   int
		preloaded int64
		want      []string
	}{
		{"no limit", limits{8, math.MaxInt64}, nil, 4, 0, []string{"GOMAXPROCS=2"}},
		{"rounded", limits{2.5, math.MaxInt64}, nil, 1, 0, []string{"GOMAXPROCS=3"}},
		{"one at least", limits{0.5, math.MaxInt64}, nil, 4, 0, []string{"GOMAXPROCS=1"}},
		{"the user's own", limits{8, 1024 * mib}, []string{"GOMAXPROCS=7", "GOMEMLIMIT=off"}, 4, 0, nil},
		{"an empty variable is none", limits{8, math.MaxInt64}, []string{"GOMAXPROCS="}, 4, 0, []string{"GOMAXPROCS=2"}},
		// (1000 MiB · 0.9 - 100 MiB - 32 MiB) / 4
		{"memory", limits{4, 1000 * mib}, nil, 3, 100 * mib, []string{"GOMAXPROCS=1", "GOMEMLIMIT=201326592"}},
		{"memory is short", limits{4, 128 * mib}, nil, 4, 0, []string{"GOMAXPROCS=1", "GOMEMLIMIT=67108864"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, memory := c.limits.share(c.env, c.workers, c.preloaded)
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if want := slices.ContainsFunc(c.want, func(s string) bool { return len(s) > 10 && s[:11] == "GOMEMLIMIT=" }); memory != want {
				t.Errorf("memory is %t", memory)
			}
		})
	}
}

func TestKillsForMemory(t *testing.T) {
	files := fstest.MapFS{
		"proc/self/mountinfo":    file("30 23 0:26 / /cg rw - cgroup2 cgroup rw\n32 23 0:28 / /mem rw - cgroup cgroup rw,memory\n"),
		"proc/self/cgroup":       file("4:memory:/\n0::/app\n"),
		"cg/app/memory.events":   file("low 0\nhigh 0\nmax 31\noom 4\noom_kill 3\noom_group_kill 0\n"),
		"mem/memory.oom_control": file("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
	}
	if n := oomKills(files); n != 5 {
		t.Errorf("got %d, want 5", n)
	}
}

// TestReadLimits reads the real machine's, whatever it is.
func TestReadLimits(t *testing.T) {
	if l := readLimits(); l.cpus <= 0 || l.memory <= 0 {
		t.Errorf("got %+v", l)
	}
	if n := privateMemory(os.Getpid()); n < 1<<20 {
		t.Errorf("this process has %d bytes of its own", n)
	}
	if n := privateMemory(1 << 30); n != 0 {
		t.Errorf("a process that does not exist has %d bytes", n)
	}
}
