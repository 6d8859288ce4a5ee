package cluster

import (
	"time"

	"github.com/catamount-server/catamount/internal/page"
	"github.com/catamount-server/catamount/worker"
)

// Counts are what has happened since the master started; a hot restart keeps
// them.
type Counts struct {
	Started        uint64 `json:"started"`         // workers
	Crashed        uint64 `json:"crashed"`         // workers that ended without having been told to
	BootFailures   uint64 `json:"boot_failures"`   // of them, before they served
	Killed         uint64 `json:"killed"`          // by the master
	Recycled       uint64 `json:"recycled"`        // for MaxRequests, MaxAge or MaxMemory
	Restarts       uint64 `json:"restarts"`        // phased and hot
	FailedRestarts uint64 `json:"failed_restarts"` // that kept the phase before
	Orphans        uint64 `json:"orphans"`         // processes of others, reaped
}

// WorkerStatus is what the master knows of a worker; the names are Puma's.
type WorkerStatus struct {
	Index       int       `json:"index"`
	PID         int       `json:"pid"`
	Phase       int       `json:"phase"`
	Stage       string    `json:"stage"`
	Booted      bool      `json:"booted"`
	StartedAt   time.Time `json:"started_at"`
	LastCheckin time.Time `json:"last_checkin"`
	// LastStatus is what the worker's slot in the shared page says. Its counters
	// are those of all workers that have had the slot.
	LastStatus worker.Stats `json:"last_status"`
}

// Stats is a snapshot of the server; the names of the first group are Puma's.
type Stats struct {
	StartedAt     time.Time      `json:"started_at"`
	Workers       int            `json:"workers"` // wanted
	Phase         int            `json:"phase"`
	BootedWorkers int            `json:"booted_workers"`
	OldWorkers    int            `json:"old_workers"` // of a phase before
	WorkerStatus  []WorkerStatus `json:"worker_status"`

	Restart  string `json:"restart"` // what is going on: "none", "phased restart", …
	Stopping bool   `json:"stopping"`
	Counts   Counts `json:"counts"`
	// Total is the sum of all workers, also of those that are gone, and of those
	// from before hot restarts: its counters never go back.
	Total worker.Stats `json:"total"`
}

// Stats asks the master's goroutine.
func (c *Cluster) Stats() (s Stats, err error) {
	err = c.do(func() { s = c.stats() })
	return s, err
}

func (c *Cluster) stats() Stats {
	s := Stats{
		StartedAt: c.startedAt, Workers: c.wanted, BootedWorkers: c.roster.booted(),
		Restart: noRestart.String(), Stopping: !c.stop.begun.IsZero(), Counts: c.counts,
		Total: c.total(),
	}
	if c.restart != nil {
		s.Restart = c.restart.kind.String()
	}
	if c.target != nil {
		s.Phase = c.target.phase
	}
	for _, h := range c.handles {
		if h.program != c.target {
			s.OldWorkers++
		}
		status := WorkerStatus{
			Index: h.Index, PID: h.PID, Phase: h.Phase(), Stage: h.stage.String(), Booted: !h.bootedAt.IsZero(),
			StartedAt: h.startedAt, LastCheckin: h.lastCheckin,
		}
		if c.legible(h.page) {
			status.LastStatus = worker.ReadStats(h.slot())
		}
		s.WorkerStatus = append(s.WorkerStatus, status)
	}
	return s
}

// legible: the statistics in the page are laid out as this program does it.
func (c *Cluster) legible(p *sharedPage) bool {
	return !p.foreign && c.options.StatsLayout == worker.StatsLayout()
}

// total sums what all slots say: of those without a worker only what is counted,
// not what was the case when their last worker ended.
func (c *Cluster) total() worker.Stats {
	sum := c.base
	for _, p := range c.pages {
		sum = worker.Add(sum, c.totalOf(p))
	}
	return sum
}

func (c *Cluster) totalOf(p *sharedPage) (sum worker.Stats) {
	if !c.legible(p) {
		return sum
	}
	for i := range p.Slots() {
		s := worker.ReadStats(p.Slot(i))
		if page.State(p.Slot(i).State.Load()) == page.Empty {
			s = counted(s)
		}
		sum = worker.Add(sum, s)
	}
	return sum
}

// counted is the part of statistics that only grows.
func counted(s worker.Stats) worker.Stats {
	s.Backlog, s.BacklogMax, s.Running, s.PoolCapacity, s.BusyThreads, s.MaxThreads, s.ReactorMax = 0, 0, 0, 0, 0, 0, 0
	s.Connections, s.HeldMemory, s.HeldFiles, s.HeldBodies = nil, 0, 0, 0
	return s
}
