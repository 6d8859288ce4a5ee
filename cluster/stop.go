package cluster

import (
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/catamount-server/catamount/worker"
	"golang.org/x/sys/unix"

	"github.com/catamount-server/catamount/internal/page"
)

var childSignal os.Signal = syscall.SIGCHLD

var masterSignals = []os.Signal{
	syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP,
	syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTTIN, syscall.SIGTTOU,
}

// Signals are what a master listens to.
func Signals() []os.Signal { return slices.Clone(masterSignals) }

// SignalName is how logs name a signal: SIGTERM, as in the manual of kill.
func SignalName(s os.Signal) string {
	if n, ok := s.(syscall.Signal); ok {
		if name := unix.SignalName(n); name != "" {
			return name
		}
	}
	return s.String()
}

// signal does what an operator asks for.
func (c *Cluster) signal(s os.Signal) {
	c.log.Info("signal", "signal", SignalName(s))
	switch s {
	case syscall.SIGTERM, syscall.SIGINT:
		c.beginStop(nil)
	case syscall.SIGQUIT:
		c.dumpAll()
	case syscall.SIGHUP:
		c.log.Info("SIGHUP does nothing: there are no log files to open anew")
	case syscall.SIGUSR1:
		_ = c.beginRestart(phased) // it logs
	case syscall.SIGUSR2:
		_ = c.beginRestart(hot)
	case syscall.SIGTTIN:
		_ = c.scale(c.wanted + 1)
	case syscall.SIGTTOU:
		_ = c.scale(c.wanted - 1)
	}
}

// dumpAll prints the stacks of all processes to their standard error.
func (c *Cluster) dumpAll() {
	_, _ = os.Stderr.Write(worker.AllStacks(64 << 10)) // the master has few
	for _, h := range c.handles {
		c.signalWorker(h, syscall.SIGQUIT)
	}
}

// beginStop begins the end. The second time it skips the delay, and after that
// the workers' patience with streams.
func (c *Cluster) beginStop(err error) {
	now := time.Now()
	if !c.stop.begun.IsZero() {
		if !c.stop.drained {
			c.stop.drainAt = now
			return
		}
		for _, h := range c.handles {
			h.slot().Command.Store(uint32(page.Hurry))
			c.signalWorker(h, syscall.SIGTERM)
		}
		return
	}
	c.stop.begun, c.stop.err = now, err
	c.stop.drainAt = now.Add(c.options.ShutdownDelay)
	c.announce() // whoever reads the log may rely on it
	if err != nil {
		c.log.Error("the server stops", "err", err)
		c.stop.drainAt = now
		c.stopping = true // nobody is started any more
	} else if c.options.ShutdownDelay > 0 {
		c.log.Info("the server stops; it still accepts for a while", "delay", c.options.ShutdownDelay)
	} else {
		c.log.Info("the server stops")
	}
	c.again = noRestart
	if c.task != nil && c.task.killed == "" {
		c.killTask("the server stops")
	}
}

// fail ends the server because it cannot serve.
func (c *Cluster) fail(err error) {
	if c.stop.begun.IsZero() {
		c.beginStop(err)
	}
}

// checkStop tells the workers when the delay is over.
func (c *Cluster) checkStop() {
	now := time.Now() // what led to this check may just have begun the stop
	if c.stop.begun.IsZero() || c.stop.drained || now.Before(c.stop.drainAt) {
		return
	}
	c.stop.drained, c.stopping = true, true
	for _, h := range c.handles {
		if !h.live() { // before its siblings are told, who would not take its connections any more
			h.slot().Command.Store(uint32(page.Finish))
		}
	}
	// The workers still accept what the kernel has queued; who comes when the
	// last of them has closed its socket is refused at once. So that one must not
	// be the master, who would throw away who has come since the workers looked.
	c.closeListeners()
	// For the same reason those that do not serve yet end first.
	for _, serving := range []bool{false, true} {
		for _, h := range c.handles {
			if h.live() && (h.stage == Booted) == serving {
				c.terminate(h, page.Finish, now)
			}
		}
	}
}

func (c *Cluster) closeListeners() {
	if c.binder == nil {
		return
	}
	if err := c.binder.Close(); err != nil {
		c.log.Error("a listening socket cannot be closed", "err", err)
	}
}

// reapOrphans takes the status of children that are nobody's, where nobody else
// will: as process 1 the master inherits them. Somebody else in this program
// who has started a process and waits for it gets a second to do so.
func (c *Cluster) reapOrphans(now time.Time) {
	if !c.env.reaper {
		return
	}
	for {
		pid, ok := c.env.dead()
		if !ok {
			c.orphansAt = time.Time{}
			return
		}
		if c.known(pid) {
			return // its own status is taken by the next check
		}
		if c.orphansAt.IsZero() {
			c.orphansAt = now.Add(time.Second)
		}
		if now.Before(c.orphansAt) {
			return
		}
		if _, _, err := c.env.wait(pid); err != nil {
			c.log.Error("an orphan cannot be reaped", "pid", pid, "err", err)
			return
		}
		c.counts.Orphans++
		c.log.Debug("orphan reaped", "pid", pid)
	}
}

func (c *Cluster) known(pid int) bool {
	if c.task != nil && c.task.child.pid == pid {
		return true
	}
	return c.count(func(h *WorkerHandle) bool { return h.PID == pid }) > 0
}
