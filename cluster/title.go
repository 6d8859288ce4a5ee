package cluster

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// title is what a process of this server shows in ps.
func (c *Cluster) title(role string) string {
	title := filepath.Base(c.options.Argv[0]) + ": " + role
	if c.options.Tag != "" {
		title += " [" + c.options.Tag + "]"
	}
	return title
}

func padTitle(title string) string {
	return title + strings.Repeat(" ", max(0, titleBytes-len(title)))
}

// setTitle writes the master's title over its command line's first word, where
// ps finds it. There is room only after a hot restart, which leaves some; until
// then ps shows the command as it was typed.
func (c *Cluster) setTitle() {
	if c.options.State == "" || c.target == nil {
		return
	}
	// The name of the process would be that of the descriptor that was executed.
	_ = os.WriteFile("/proc/self/comm", []byte(filepath.Base(c.options.Argv[0])), 0)
	words, err := os.ReadFile("/proc/self/cmdline")
	room := bytes.IndexByte(words, 0)
	if err != nil || room < titleBytes {
		return
	}
	at, err := commandLineAt()
	if err != nil {
		return
	}
	memory, err := os.OpenFile("/proc/self/mem", os.O_WRONLY, 0)
	if err != nil {
		return // all this is for show
	}
	defer memory.Close()
	title := padTitle(c.title(fmt.Sprintf("master [phase %d]", c.target.phase)))
	if len(title) < room {
		title += strings.Repeat(" ", room-len(title))
	}
	_, _ = memory.WriteAt([]byte(title[:room]), at)
}

// commandLineAt is the address of the command line: field 48 of
// /proc/self/stat, arg_start (proc(5)).
func commandLineAt() (int64, error) {
	text, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0, err
	}
	// The second field is a name in parentheses, with anything in it.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const argStart = 48 - 3 // the first of fields is number 3
	if len(fields) <= argStart {
		return 0, fmt.Errorf("/proc/self/stat has %d fields after the name", len(fields))
	}
	return strconv.ParseInt(fields[argStart], 10, 64)
}
