package cluster

import (
	"fmt"
	"os"
	"path/filepath"
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

// showTitle says in ps what the master is and has.
func (c *Cluster) showTitle() {
	if c.target == nil {
		return
	}
	c.processTitle.Set(fmt.Sprintf("%s %d/%d workers", c.title(fmt.Sprintf("master [phase %d]", c.target.phase)), c.roster.booted(), c.wanted))
}

// setCommand names the process for top and the kernel's log, in 15 bytes. After
// a hot restart it would be the number of the descriptor that was executed.
func (c *Cluster) setCommand() {
	_ = os.WriteFile("/proc/self/comm", []byte(filepath.Base(c.options.Argv[0])), 0) // for show
}
