package cluster

import (
	"time"

	"github.com/catamount-server/catamount/internal/page"
)

// Stage of a worker, as its master sees it.
//
//	Started → Booted → Terminating
//	   └──────────────────┘
//
// Its end is not a stage: then the handle is gone. [WorkerHandle.enter] is the
// only place that changes it.
type Stage int

const (
	// Started: it was executed, and does not serve yet.
	Started Stage = iota
	// Booted: it serves.
	Booted
	// Terminating: it was told to leave, or has said that it does.
	Terminating
)

func (s Stage) String() string { return [...]string{"started", "booted", "terminating"}[s] }

// WorkerHandle is what the master knows of one worker.
type WorkerHandle struct {
	Index, PID int
	program    *program
	child      child
	// page is where its slot is.
	page *sharedPage

	stage Stage
	// hello: it has said that it speaks the right protocol.
	hello bool
	// startedAt, bootedAt and terminatedAt are when it entered its stages.
	startedAt, bootedAt, terminatedAt time.Time
	// lastCheckin is its last sign of life, of which overdue counts.
	lastCheckin time.Time
	// deadline is when a terminating worker's time is over.
	deadline time.Time
	// dumpedAt is when it was asked for its stacks, killedAt when it was killed;
	// why says what for.
	dumpedAt, killedAt time.Time
	why                string
	// deserts: it leaves of its own accord, soon after its boot.
	deserts bool
	// retire says why it shall be replaced; "": it shall not.
	retire string
	// failure is what it has said about why it cannot boot.
	failure string
	// closedAt is when its pipe came to its end: it should be dead.
	closedAt time.Time
	// nonsense counts what it has written that is no message.
	nonsense int
	// maxRequests, maxAge and maxMemory are its own thresholds; 0: none.
	maxRequests uint64
	maxAge      time.Duration
	maxMemory   int64
}

// Phase is the phase of its program.
func (h *WorkerHandle) Phase() int { return h.program.phase }

func (h *WorkerHandle) slot() *page.Slot { return h.page.Slot(h.Index) }

// enter changes the stage.
func (h *WorkerHandle) enter(stage Stage, now time.Time) {
	h.stage = stage
	switch stage {
	case Started:
		h.startedAt, h.lastCheckin = now, now
	case Booted:
		h.bootedAt, h.lastCheckin = now, now
	case Terminating:
		h.terminatedAt = now
		h.dumpedAt, h.why = time.Time{}, "" // its time is counted anew
	}
}

// checkin notes a sign of life. It reports whether the worker was about to be
// killed for want of one.
func (h *WorkerHandle) checkin(now time.Time) (back bool) {
	h.lastCheckin = now
	if h.stage == Booted && !h.dumpedAt.IsZero() && h.killedAt.IsZero() {
		h.dumpedAt, h.why = time.Time{}, ""
		return true
	}
	return false
}

// live: it serves, or will.
func (h *WorkerHandle) live() bool { return h.stage != Terminating }
