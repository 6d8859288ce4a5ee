package measure

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Memory is what the kernel counts for some processes, in bytes. Pss charges a
// page that several processes share to each by its part.
type Memory struct {
	RSS, PSS, Anonymous int64
}

// MemoryOf adds up the process pid and all its descendants.
func MemoryOf(pid int) (Memory, error) {
	var sum Memory
	pids, err := Tree(pid)
	if err != nil {
		return sum, err
	}
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return sum, fmt.Errorf("memory of process %d: %w", pid, err)
		}
		m, err := parseSmaps(string(text))
		if err != nil {
			return sum, fmt.Errorf("memory of process %d: %w", pid, err)
		}
		sum.RSS += m.RSS
		sum.PSS += m.PSS
		sum.Anonymous += m.Anonymous
	}
	return sum, nil
}

// parseSmaps reads smaps_rollup, proc_pid_smaps(5): lines of "Name: N kB".
func parseSmaps(text string) (m Memory, err error) {
	want := map[string]*int64{"Rss:": &m.RSS, "Pss:": &m.PSS, "Anonymous:": &m.Anonymous}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != 3 || want[fields[0]] == nil {
			continue
		}
		kb, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return m, fmt.Errorf("smaps_rollup: %w", err)
		}
		*want[fields[0]] = kb << 10
		delete(want, fields[0])
	}
	if len(want) > 0 {
		return m, errors.New("smaps_rollup: Rss, Pss or Anonymous is missing")
	}
	return m, nil
}
