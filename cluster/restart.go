package cluster

import (
	"fmt"
	"time"

	"github.com/catamount-server/catamount/worker"
)

// restart is what leads to a new phase.
//
//	preflight (hot only) → preparing (with Preload) → replacing → over
//	                                                └→ executing (hot): the new program goes on with replacing
//
// Each of them may fail; then everything stays as it was.
type restart struct {
	kind    restartKind
	program *program
	began   time.Time
}

type restartKind int

const (
	noRestart  restartKind = iota
	firstStart             // the first phase
	phased                 // USR1
	hot                    // USR2
	afterHot               // what the new program does first
)

func (k restartKind) String() string {
	return [...]string{"none", "start", "phased restart", "hot restart", "hot restart"}[k]
}

// beginRestart begins a restart, or notes it for when the present one is over.
func (c *Cluster) beginRestart(kind restartKind) error {
	if c.stopping || !c.stop.begun.IsZero() {
		err := fmt.Errorf("no %s: the server is stopping", kind)
		c.log.Warn("a restart was asked for in vain", "err", err)
		return err
	}
	if c.restart != nil && !c.startIsDegraded() {
		c.again = max(c.again, kind)
		c.log.Info("a restart is under way; another follows", "restart", kind.String())
		return nil
	}
	c.log.Info(kind.String()+" begins", "phase", c.lastPhase+1)
	c.hook("BeforeRestart", func() {
		if c.options.Hooks.BeforeRestart != nil {
			c.options.Hooks.BeforeRestart()
		}
	})
	p, err := c.openProgram(c.lastPhase + 1)
	if err != nil {
		err = fmt.Errorf("%s: %w", kind, err)
		c.log.Error(kind.String()+" failed: everything stays as it is", "err", err)
		return err
	}
	c.restart = &restart{kind: kind, program: p, began: time.Now()}
	if kind == hot {
		c.preflight()
	} else {
		c.proceed()
	}
	return nil
}

// startIsDegraded: the first phase serves, but one of its workers cannot boot. Who
// asks for a restart then does not want to wait until it can.
func (c *Cluster) startIsDegraded() bool { return c.restart.kind == firstStart && c.announced }

// preflight asks the new program whether it could take over.
func (c *Cluster) preflight() {
	t := &task{role: worker.RoleCheck, program: c.restart.program, preload: -1}
	c.startTask(t, c.options.BootTimeout, func(err error) {
		switch {
		case err != nil:
			c.abandon(fmt.Errorf("the new program refuses: %w", err))
		case t.protocol != worker.Protocol:
			// It would not understand this master in another role. It prepares
			// its memory itself.
			c.prepared()
		default:
			c.proceed()
		}
	})
}

// proceed prepares the memory of a new phase, if it has any, and then replaces
// the workers.
func (c *Cluster) proceed() {
	p := c.restart.program
	if !c.options.Preload || p.preload >= 0 {
		c.prepared()
		return
	}
	c.prepare(p, func(err error) {
		if err != nil {
			c.abandon(fmt.Errorf("preload: %w", err))
			return
		}
		c.prepared()
	})
}

func (c *Cluster) prepared() {
	switch c.restart.kind {
	case hot:
		c.handOverTo(c.restart.program)
	case firstStart:
		c.beforeFork()
		c.target = c.restart.program
	default:
		c.fallback, c.target = c.target, c.restart.program
	}
}

// beforeFork is the first thing that the application hears of in the master:
// before the first worker that this program starts.
func (c *Cluster) beforeFork() {
	c.hook("BeforeFork", func() {
		if c.options.Hooks.BeforeFork != nil {
			c.options.Hooks.BeforeFork()
		}
	})
}

// abandon ends a restart of which no worker has been started.
func (c *Cluster) abandon(err error) {
	r := c.restart
	if !c.stop.begun.IsZero() {
		c.endRestart() // no wonder
		return
	}
	if r.kind == firstStart {
		c.fail(fmt.Errorf("cluster: %w", err))
		return
	}
	c.counts.FailedRestarts++
	c.log.Error(r.kind.String()+" failed: everything stays as it is", "phase", r.program.phase, "err", err)
	c.endRestart()
}

// bootFailed notes that a worker of a program could not boot.
func (c *Cluster) bootFailed(p *program, reason string) {
	switch {
	case c.stopping || p != c.target:
	case c.fallback != nil:
		p.failures++
		if p.failures >= c.options.MaxBootFailures {
			c.giveUp(reason)
		}
	case !p.proven:
		if c.count(func(h *WorkerHandle) bool { return h.program == p && h.live() }) == 0 {
			c.fail(fmt.Errorf("cluster: no worker can boot: %s", reason))
		}
	case !c.announced:
		c.announced = true
		c.log.Warn("degraded: a worker cannot boot; it is tried again, ever less often, while the others serve",
			"phase", p.phase, "booted", c.roster.booted(), "wanted", c.wanted, "reason", reason)
		if c.restart != nil && c.startIsDegraded() && c.again != noRestart {
			c.endRestart()
		}
	}
}

// giveUp goes back to the phase before. Workers of the new one that already
// serve are replaced in their turn.
func (c *Cluster) giveUp(reason string) {
	c.counts.FailedRestarts++
	c.log.Error(c.restart.kind.String()+" failed: the phase before goes on",
		"phase", c.target.phase, "kept", c.fallback.phase, "failures", c.target.failures, "reason", reason)
	c.target, c.fallback = c.fallback, nil
	c.endRestart()
}

// checkRestart notices that a restart is over, and that workers are.
func (c *Cluster) checkRestart(now time.Time) {
	if c.target == nil || c.stopping || !c.restarted() {
		return
	}
	c.announced = false
	if c.restart == nil || c.restart.program != c.target {
		return
	}
	r := c.restart
	if !c.stop.begun.IsZero() {
		c.endRestart() // no wonder
		return
	}
	if r.kind == firstStart {
		c.log.Info("all workers booted", "workers", c.wanted, "after", now.Sub(r.began).Round(time.Millisecond))
	} else {
		c.counts.Restarts++
		c.log.Info(r.kind.String()+" complete", "phase", c.target.phase, "after", now.Sub(r.began).Round(time.Millisecond))
	}
	c.fallback = nil
	c.binder.closeRetired()
	c.hook("AfterBooted", func() {
		if c.options.Hooks.AfterBooted != nil {
			c.options.Hooks.AfterBooted()
		}
	})
	c.endRestart()
}

// endRestart closes what it leaves, and begins what was asked for meanwhile.
func (c *Cluster) endRestart() {
	c.restart = nil
	c.closeUnused()
	if next := c.again; next != noRestart {
		c.again = noRestart
		_ = c.beginRestart(next) // it logs
	}
}

// closeUnused closes programs that nobody runs or will run.
func (c *Cluster) closeUnused() {
	kept := c.programs[:0]
	for _, p := range c.programs {
		used := p == c.target || p == c.fallback || c.restart != nil && p == c.restart.program ||
			c.count(func(h *WorkerHandle) bool { return h.program == p }) > 0
		if used {
			kept = append(kept, p)
		} else {
			p.close()
		}
	}
	clear(c.programs[len(kept):])
	c.programs = kept
	c.closeOldPages()
}
