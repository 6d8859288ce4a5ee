package cluster

import "time"

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
		s.WorkerStatus = append(s.WorkerStatus, WorkerStatus{
			Index: h.Index, PID: h.PID, Phase: h.Phase(), Stage: h.stage.String(), Booted: !h.bootedAt.IsZero(),
			StartedAt: h.startedAt, LastCheckin: h.lastCheckin,
		})
	}
	return s
}
