package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"github.com/catamount-server/catamount/internal/page"
	"github.com/catamount-server/catamount/worker"
)

// worker is the logger with a worker's attributes.
func (c *Cluster) worker(h *WorkerHandle) *slog.Logger {
	return c.log.With("worker", h.Index, "pid", h.PID, "phase", h.Phase())
}

// spawn starts a worker.
func (c *Cluster) spawn(o order) {
	c.hook("BeforeWorkerFork", func() { call(c.options.Hooks.BeforeWorkerFork, o.index) })
	slot := o.program.page.Slot(o.index)
	slot.Reset()
	slot.Phase.Store(uint64(o.program.phase))
	slot.State.Store(uint32(page.Booting))
	now := time.Now()
	child, err := c.env.start(c.workerProcess(o))
	if err != nil {
		slot.State.Store(uint32(page.Empty))
		c.log.Error("a worker cannot be started", "worker", o.index, "phase", o.program.phase, "err", err)
		o.program.page.crashed(o.index, o.program, now)
		c.bootFailed(o.program, err.Error())
		return
	}
	slot.PID.Store(int64(child.pid))
	h := &WorkerHandle{Index: o.index, PID: child.pid, program: o.program, child: child, page: o.program.page}
	c.draw(h)
	h.enter(Started, now)
	c.handles = append(c.handles, h)
	c.counts.Started++
	c.startReader(h)
	c.worker(h).Debug("worker started")
	for _, bind := range c.binder.assertNonBlocking() {
		c.log.Error("somebody has made a listening socket blocking; it is not any more", "bind", bind.String())
	}
	c.hook("AfterWorkerFork", func() { call(c.options.Hooks.AfterWorkerFork, o.index) })
}

// draw gives a worker its thresholds, each larger than the option by a random
// part of Jitter.
func (c *Cluster) draw(h *WorkerHandle) {
	jitter := func(n float64) float64 { return n * (1 + c.options.Jitter*rand.Float64()) }
	h.maxRequests = uint64(jitter(float64(c.options.MaxRequests)))
	h.maxAge = time.Duration(jitter(float64(c.options.MaxAge)))
	h.maxMemory = int64(jitter(float64(c.options.MaxMemory)))
}

func (c *Cluster) workerProcess(o order) process {
	env := c.options.cleanEnv()
	share, memory := c.env.limits().share(env, c.wanted, o.program.preloadBytes())
	in := c.inheritance(worker.RoleWorker, o.program)
	in.Index, in.MemoryLimit = o.index, memory
	in.Page, in.HandOver, in.Preload = o.program.page.fd, c.handOver, o.program.preload
	for _, l := range c.binder.listeners {
		in.Listeners = append(in.Listeners, worker.InheritedListener{FD: l.fd, Bind: l.bind.String()})
	}
	return process{
		program:     o.program,
		title:       c.title(fmt.Sprintf("worker %d [phase %d]", o.index, o.program.phase)),
		argv:        c.options.Argv,
		env:         append(env, share...),
		inheritance: in,
	}
}

// retire marks a worker to be replaced.
func (c *Cluster) retire(h *WorkerHandle, why string) {
	h.retire = why
	c.counts.Recycled++
	c.worker(h).Info("the worker will be replaced", "reason", why)
}

// dismiss tells a worker to leave its connections to its siblings.
func (c *Cluster) dismiss(h *WorkerHandle, now time.Time) {
	why := "there are more workers than wanted"
	switch {
	case h.retire != "":
		why = h.retire
	case h.program != c.target:
		why = fmt.Sprintf("phase %d takes over", c.target.phase)
	}
	c.worker(h).Info("the worker is told to leave", "reason", why)
	c.terminate(h, page.HandOver, now)
}

// terminate tells a worker to leave.
func (c *Cluster) terminate(h *WorkerHandle, command page.Command, now time.Time) {
	slot := h.slot()
	slot.Command.Store(uint32(command))
	c.leave(h, now)
	c.signalWorker(h, syscall.SIGTERM)
}

// leave notes that a worker leaves, and until when.
func (c *Cluster) leave(h *WorkerHandle, now time.Time) {
	h.enter(Terminating, now)
	h.deadline = now.Add(c.options.ShutdownTimeout)
	h.slot().Deadline.Store(page.Now() + int64(c.options.ShutdownTimeout))
}

func (c *Cluster) signalWorker(h *WorkerHandle, s syscall.Signal) {
	if err := c.env.kill(h.PID, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		c.worker(h).Error("the worker cannot be signalled", "signal", SignalName(s), "err", err)
	}
}

// execute does what a verdict says.
func (c *Cluster) execute(v verdict, now time.Time) {
	h := v.handle
	if v.kill {
		c.kill(h, v.why)
		return
	}
	h.dumpedAt, h.why = now, v.why
	log := c.worker(h).With("reason", v.why)
	if requests := serving(h.slot()); len(requests) > 0 {
		log = log.With("serving", requests)
	}
	log.Error("the worker is asked for its stacks before it is killed", "grace", h.grace())
	c.signalWorker(h, syscall.SIGQUIT)
}

// kill ends a worker at once.
func (c *Cluster) kill(h *WorkerHandle, why string) {
	if !h.killedAt.IsZero() {
		return
	}
	h.killedAt, h.why = time.Now(), why
	c.counts.Killed++
	c.worker(h).Error("the worker is killed", "reason", why)
	c.signalWorker(h, syscall.SIGKILL)
}

// reap takes the status of children that have ended.
func (c *Cluster) reap(now time.Time) {
	for _, h := range append([]*WorkerHandle(nil), c.handles...) {
		status, done, err := c.env.wait(h.PID)
		if err != nil {
			c.worker(h).Error("the status of a worker is lost", "err", err)
		}
		if done {
			c.died(h, status, now)
		}
	}
	c.reapTask()
	c.reapOrphans(now)
}

// died takes a worker's end.
func (c *Cluster) died(h *WorkerHandle, status syscall.WaitStatus, now time.Time) {
	c.finishReader(&h.child, func(m worker.Message, err error) { c.handle(event{handle: h, message: m, err: err}) })
	h.child.close()
	c.forget(h)
	exit := Exit{
		Index: h.Index, PID: h.PID, Phase: h.Phase(), Status: status,
		Expected: h.stage == Terminating && h.killedAt.IsZero(),
	}
	exit.Reason, exit.Memory = c.exitReason(h, status)
	log := c.worker(h).With("reason", exit.Reason)
	if requests := serving(h.slot()); len(requests) > 0 {
		log = log.With("serving", requests)
	}
	switch {
	case exit.Expected && (status.Exited() && status.ExitStatus() == 0 || status.Signal() == syscall.SIGTERM):
		log.Info("worker stopped", "after", now.Sub(h.terminatedAt).Round(time.Millisecond))
	case h.stage == Started && !c.stopping:
		log.Error("the worker could not boot")
	default:
		log.Error("the worker is dead", "served_for", h.servedFor(now), "connections", h.slot().Connections.Load())
	}
	h.slot().Reset()
	switch {
	case h.deserts: // and so may the next: its successors wait ever longer
		h.page.crashed(h.Index, h.program, now)
	case h.stage == Terminating:
		h.page.slots[h.Index] = slotRecord{}
	default:
		c.counts.Crashed++
		if !h.bootedAt.IsZero() && now.Sub(h.bootedAt) >= healthyAfter {
			h.page.slots[h.Index].crashes = 0
		}
		if h.stage == Booted && status.Signaled() && status.Signal() == syscall.SIGKILL && h.killedAt.IsZero() && !exit.Memory {
			record := h.page.record(h.Index, h.program)
			record.notBefore = h.startedAt.Add(killedPause)
			h.page.slots[h.Index] = record
		} else {
			h.page.crashed(h.Index, h.program, now)
		}
		if h.stage == Started {
			c.counts.BootFailures++
			if !isMeantForAll(status) {
				c.bootFailed(h.program, exit.Reason)
			}
		}
	}
	c.hook("AfterWorkerShutdown", func() { call(c.options.Hooks.AfterWorkerShutdown, exit) })
	c.closeUnused()
}

// isMeantForAll reports whether a worker that does not listen to signals yet was
// ended by one that reaches whole groups of processes. Its program may be sound.
func isMeantForAll(status syscall.WaitStatus) bool {
	return status.Signaled() && slices.Contains(masterSignals, os.Signal(status.Signal()))
}

func (h *WorkerHandle) servedFor(now time.Time) time.Duration {
	if h.bootedAt.IsZero() {
		return 0
	}
	return now.Sub(h.bootedAt).Round(time.Millisecond)
}

// forget takes a worker out of the list.
func (c *Cluster) forget(h *WorkerHandle) {
	for i, other := range c.handles {
		if other == h {
			c.handles = append(c.handles[:i:i], c.handles[i+1:]...)
			return
		}
	}
}

// crashed notes a crash of a slot's worker, and when its successor may start.
func (p *sharedPage) crashed(index int, of *program, now time.Time) {
	record := p.record(index, of)
	record.crashes++
	record.notBefore = now.Add(backOff(record.crashes))
	p.slots[index] = record
}

// exitReason says in words how a worker has ended, and whether it was for lack
// of memory.
func (c *Cluster) exitReason(h *WorkerHandle, status syscall.WaitStatus) (reason string, memory bool) {
	oomKills := c.env.killedForMemory()
	grown := oomKills > c.oomKills
	c.oomKills = oomKills
	switch {
	case !h.killedAt.IsZero():
		return "killed by the master: " + h.why, false
	case status.Signaled() && status.Signal() == syscall.SIGKILL && grown:
		return "killed for memory: the kernel's OOM killer (see memory.max and Options.MaxMemory)", true
	case status.Signaled():
		return "killed by " + SignalName(status.Signal()), false
	case status.ExitStatus() == 0 && h.stage == Terminating:
		return "stopped", false
	}
	reason = fmt.Sprintf("exit code %d", status.ExitStatus())
	if what, ok := exitCodes[status.ExitStatus()]; ok {
		reason += ", " + what
	}
	if h.failure != "" {
		reason += ": " + h.failure
	}
	return reason, false
}

var exitCodes = map[int]string{
	exitBoot: "it could not boot", exitProtocol: "it speaks another protocol", exitConfig: "its configuration is wrong",
}

// hook runs a hook, whose panics are its own.
func (c *Cluster) hook(name string, run func()) {
	defer func() {
		if reason := recover(); reason != nil {
			c.log.Error("a hook has panicked", "hook", name, "panic", fmt.Sprint(reason), "stack", string(debug.Stack()))
		}
	}()
	run()
}

func call[T any](hook func(T), argument T) {
	if hook != nil {
		hook(argument)
	}
}
