package measure

import (
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/catamount-server/catamount/bench/internal/process"
	"golang.org/x/sys/unix"
)

// Machine is where the figures were taken.
type Machine struct {
	CPU        string `json:"cpu"`
	Processors int    `json:"processors"`
	MemoryMiB  int64  `json:"memory_mib"`
	Kernel     string `json:"kernel"`
	Go         string `json:"go"`
	Commit     string `json:"commit"` // "unknown" outside of a git checkout, "+changes" when files differ from it
}

// ThisMachine returns what can be found out; what cannot is "unknown".
func ThisMachine() Machine {
	m := Machine{CPU: "unknown", Kernel: "unknown", Go: runtime.Version(), Processors: len(process.Processors()), Commit: commit()}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		m.CPU = cpuModel(string(text))
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Sysname[:]) + " " + unix.ByteSliceToString(name.Release[:])
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.MemoryMiB = int64(info.Totalram) * int64(info.Unit) >> 20
	}
	return m
}

func cpuModel(cpuinfo string) string {
	for line := range strings.Lines(cpuinfo) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func commit() string {
	id, err := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	name := strings.TrimSpace(string(id))
	if changes, err := exec.Command("git", "status", "--porcelain", "--untracked-files=no").Output(); err != nil || len(changes) > 0 {
		name += "+changes"
	}
	return name
}
