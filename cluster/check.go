package cluster

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

const (
	// dumpGrace is how long a worker that does not answer has to print its
	// stacks, from when it was asked until it is killed.
	dumpGrace = 5 * time.Second
	// shutdownDumpGrace is the same for one that does not leave in time.
	shutdownDumpGrace = time.Second
	// closedGrace is how long a worker that has closed its pipe may live.
	closedGrace = time.Second
	// healthyAfter is how long a worker has to serve for its slot's crashes to
	// be forgotten.
	healthyAfter = time.Minute
	// killedPause is the least time between two starts of a slot whose worker
	// somebody has killed: nothing is wrong with the program, so it needs no
	// back-off, but whoever kills may do so again.
	killedPause = 50 * time.Millisecond
)

// backOff is how long to wait for a worker's next start after so many crashes
// in a row of its slot.
func backOff(crashes int) time.Duration {
	steps := [...]time.Duration{0, 0, 100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second, 10 * time.Second, 30 * time.Second}
	return steps[min(crashes, len(steps)-1)]
}

// roster is what the master decides from. Its methods are pure: they look at
// handles and a time, and say what should be done.
type roster struct {
	handles []*WorkerHandle
	wanted  int
	// target is the program that all workers should be of.
	target *program
	// fallback is the program before, from the beginning of a restart until its
	// end; nil otherwise.
	fallback *program
	// stopping: workers are only taken away.
	stopping bool

	checkInterval, workerTimeout, bootTimeout time.Duration
	culling                                   Culling
}

// count is how many handles have a property.
func (r *roster) count(property func(*WorkerHandle) bool) (n int) {
	for _, h := range r.handles {
		if property(h) {
			n++
		}
	}
	return n
}

func (r *roster) live() int { return r.count((*WorkerHandle).live) }
func (r *roster) booted() int {
	return r.count(func(h *WorkerHandle) bool { return h.stage == Booted })
}

// outdated: the worker shall be replaced.
func (r *roster) outdated(h *WorkerHandle) bool { return h.program != r.target || h.retire != "" }

// verdict is what is to be done about a worker that does not do what it should.
type verdict struct {
	handle *WorkerHandle
	kill   bool // ask it for its stacks otherwise
	why    string
}

// overdue finds the workers that give no sign of life, do not boot or do not
// leave.
func (r *roster) overdue(now time.Time) (verdicts []verdict) {
	for _, h := range r.handles {
		due, why := r.due(h)
		if !h.killedAt.IsZero() || due.IsZero() || now.Before(due) {
			continue
		}
		switch grace := h.grace(); {
		case grace == 0:
			verdicts = append(verdicts, verdict{h, true, why})
		case h.dumpedAt.IsZero():
			verdicts = append(verdicts, verdict{h, false, why})
		case !now.Before(h.dumpedAt.Add(grace)):
			verdicts = append(verdicts, verdict{h, true, h.why})
		}
	}
	return verdicts
}

// due is when patience with a worker ends, and why. Zero: never.
func (r *roster) due(h *WorkerHandle) (due time.Time, why string) {
	switch {
	case !h.closedAt.IsZero():
		return h.closedAt.Add(closedGrace), "it has closed its pipe and lives on"
	case h.stage == Terminating:
		return h.deadline, "it does not leave in time"
	case h.stage == Booted:
		return h.lastCheckin.Add(r.workerTimeout), fmt.Sprintf("no sign of life for %s (WorkerTimeout)", r.workerTimeout)
	default:
		return h.startedAt.Add(r.bootTimeout), fmt.Sprintf("it has not booted within %s (BootTimeout)", r.bootTimeout)
	}
}

// grace is how long the worker has for its stacks; 0: it is not asked.
func (h *WorkerHandle) grace() time.Duration {
	switch {
	case !h.closedAt.IsZero():
		return 0
	case h.stage == Terminating:
		return shutdownDumpGrace
	}
	return dumpGrace
}

// order is a worker to start.
type order struct {
	index   int
	program *program
}

// toSpawn says which workers to start now, and when to look again because a
// slot's back-off ends; zero: not for that.
func (r *roster) toSpawn(now time.Time) (orders []order, again time.Time) {
	if r.stopping || r.target == nil {
		return nil, time.Time{}
	}
	missing, program := r.wanted-r.live(), r.forMissing()
	if missing <= 0 {
		if missing < 0 || !r.mayReplace() {
			return nil, time.Time{}
		}
		missing, program = 1, r.target
	} else if !program.proven && r.fallback == nil && r.count(func(h *WorkerHandle) bool { return h.program == program }) > 0 {
		// The first workers of the first phase: whether it can boot at all is
		// awaited before those that could not are started again.
		return nil, time.Time{}
	}
	// Those that have crashed come first, so that nobody gets around a back-off
	// by another slot.
	free := r.free(program.page, func(index int) bool { return program.page.record(index, program).crashes > 0 })
	for _, index := range free[:min(missing, len(free))] {
		if wait := program.page.record(index, program).notBefore; now.Before(wait) {
			if again.IsZero() || wait.Before(again) {
				again = wait
			}
			continue
		}
		orders = append(orders, order{index, program})
	}
	if program == r.fallback && len(orders) == 0 && r.count(func(h *WorkerHandle) bool { return h.stage == Started }) == 0 {
		orders = r.tryTarget(now)
	}
	return orders, again
}

// tryTarget starts a worker of the new program though workers of the old one are
// missing: they crash, and the restart may be what mends that.
func (r *roster) tryTarget(now time.Time) []order {
	// The slots of those that have crashed are left to their successors.
	page := r.target.page
	for _, index := range slices.Backward(r.free(page, func(index int) bool { return page.slots[index].crashes > 0 })) {
		if !now.Before(page.record(index, r.target).notBefore) {
			return []order{{index, r.target}}
		}
	}
	return nil
}

// forMissing is the program of a worker that takes the place of one that is
// gone: while nobody knows whether the new one boots, it is the old one.
func (r *roster) forMissing() *program {
	if r.fallback != nil && !r.target.proven {
		return r.fallback
	}
	return r.target
}

// mayReplace: there are as many workers as wanted, one of them is outdated, and
// the last replacement is over: its successor has booted and it is gone.
func (r *roster) mayReplace() bool {
	return r.count(r.outdated) > r.count(func(h *WorkerHandle) bool { return r.outdated(h) && !h.live() }) &&
		r.count(func(h *WorkerHandle) bool { return h.stage != Booted }) == 0
}

// free are the indexes of slots without a worker, those first that have a
// property.
func (r *roster) free(p *sharedPage, first func(index int) bool) []int {
	taken := make(map[int]bool)
	for _, h := range r.handles {
		if h.page == p {
			taken[h.Index] = true
		}
	}
	var front, rest []int
	for i := range p.slots {
		switch {
		case taken[i]:
		case first(i):
			front = append(front, i)
		default:
			rest = append(rest, i)
		}
	}
	return append(front, rest...)
}

// toDrain says which workers shall leave because there are more than wanted. It
// takes none away that serves unless as many as wanted do without it.
func (r *roster) toDrain() []*WorkerHandle {
	if r.stopping {
		return nil
	}
	var leaving []*WorkerHandle
	surplus, booted := r.live()-r.wanted, r.booted()
	for _, h := range r.cullOrder() {
		if surplus <= 0 {
			break
		}
		if h.stage == Booted {
			if booted <= r.wanted {
				continue
			}
			booted--
		} else if h.program == r.target && h.retire == "" && r.count(r.outdated) > 0 {
			continue // it is the replacement that is being awaited
		}
		leaving = append(leaving, h)
		surplus--
	}
	return leaving
}

// cullOrder lists the live workers, those first that are to go first: outdated
// ones, then ones that do not serve yet, then by Culling.
func (r *roster) cullOrder() []*WorkerHandle {
	var live []*WorkerHandle
	for _, h := range r.handles {
		if h.live() {
			live = append(live, h)
		}
	}
	first := func(yes bool) int {
		if yes {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(live, func(a, b *WorkerHandle) int {
		age := a.startedAt.Compare(b.startedAt)
		if r.culling == Youngest {
			age = -age
		}
		if r.outdated(a) && r.outdated(b) {
			age = cmp.Compare(a.Index, b.Index)
		}
		return cmp.Or(
			cmp.Compare(first(r.outdated(a)), first(r.outdated(b))),
			cmp.Compare(first(a.stage == Started), first(b.stage == Started)),
			cmp.Compare(a.Phase(), b.Phase()),
			age,
		)
	})
	return live
}

// toRetire finds one worker that has passed a threshold, if none is being
// replaced already.
func (r *roster) toRetire(now time.Time, memory func(pid int) int64) (handle *WorkerHandle, why string) {
	if r.stopping || r.count(r.outdated) > 0 || r.booted() != len(r.handles) || r.live() != r.wanted {
		return nil, ""
	}
	for _, h := range r.handles {
		served, age := h.slot().Served.Load(), now.Sub(h.bootedAt)
		switch {
		case h.maxRequests > 0 && served >= h.maxRequests:
			return h, fmt.Sprintf("it has served %d requests (MaxRequests)", served)
		case h.maxAge > 0 && age >= h.maxAge:
			return h, fmt.Sprintf("it has served for %s (MaxAge)", age.Round(time.Second))
		case h.maxMemory > 0:
			if n := memory(h.PID); n >= h.maxMemory {
				return h, fmt.Sprintf("it has %d MiB of its own (MaxMemory)", n>>20)
			}
		}
	}
	return nil, ""
}

// restarted: every worker is of the target program, serves, and none that was
// replaced is left.
func (r *roster) restarted() bool {
	return r.live() == r.wanted && r.booted() == len(r.handles) && r.count(r.outdated) == 0
}

// nextCheck is when time alone may change a decision.
func (r *roster) nextCheck(now time.Time) time.Time {
	next := now.Add(r.checkInterval)
	for _, h := range r.handles {
		due, _ := r.due(h)
		if !h.killedAt.IsZero() || due.IsZero() {
			continue
		}
		if !h.dumpedAt.IsZero() {
			due = h.dumpedAt.Add(h.grace())
		}
		if due.Before(next) {
			next = due
		}
	}
	return next
}

// forgive gives every worker its time anew: the master was not running for so
// long that it cannot tell who is late.
func (r *roster) forgive(now time.Time, asleep time.Duration) {
	for _, h := range r.handles {
		h.lastCheckin = now
		if h.stage == Started {
			h.startedAt = h.startedAt.Add(asleep)
		}
		if !h.deadline.IsZero() {
			h.deadline = h.deadline.Add(asleep)
		}
		if h.killedAt.IsZero() && h.stage != Terminating {
			h.dumpedAt, h.why = time.Time{}, ""
		}
	}
}
