package catamount

import (
	"errors"
	"os"

	"github.com/catamount-server/catamount/cluster"
)

// ClusterStats is a snapshot of a master and its workers: see package cluster,
// Stats. Its Total is the sum of all workers' Stats.
type ClusterStats = cluster.Stats

// ErrNoMaster: what was asked for is a master's to do, and this process is none,
// or Run has not begun or has ended.
var ErrNoMaster = errors.New("catamount: no master runs in this process")

// Stats returns a snapshot. In single mode it has one worker, the process
// itself.
func (l *Launcher) Stats() (ClusterStats, error) {
	c, s := l.running()
	if s != nil {
		return s.stats(), nil
	}
	if c == nil {
		return ClusterStats{}, ErrNoMaster
	}
	return c.Stats()
}

// PhasedRestart replaces the workers, one by one, with ones of the program that
// is on the disk now; it returns when that has begun. Like the signal USR1.
func (l *Launcher) PhasedRestart() error { return l.tell((*cluster.Cluster).PhasedRestart) }

// HotRestart replaces the program of the master as well, in the same process; it
// returns when that has begun. Like the signal USR2.
func (l *Launcher) HotRestart() error { return l.tell((*cluster.Cluster).HotRestart) }

// Scale changes the number of workers, within Config.MinWorkers and MaxWorkers.
func (l *Launcher) Scale(workers int) error {
	return l.tell(func(c *cluster.Cluster) error { return c.Scale(workers) })
}

// Stop begins an orderly end, after which Run returns. The second time it does
// not wait for what Config.ShutdownDelay, or in single mode a request, still
// waits for. Like the signal TERM.
func (l *Launcher) Stop() error {
	c, s := l.running()
	if s != nil {
		select {
		case s.ask <- struct{}{}:
			return nil
		case <-s.ended:
			return ErrNoMaster
		}
	}
	if c == nil {
		return ErrNoMaster
	}
	return c.Stop()
}

func (l *Launcher) tell(command func(*cluster.Cluster) error) error {
	c, _ := l.running()
	if c == nil {
		return ErrNoMaster
	}
	return command(c)
}

func (l *Launcher) running() (*cluster.Cluster, *single) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cluster, l.single
}

func (s *single) stats() ClusterStats {
	total := s.server.Stats()
	return ClusterStats{
		StartedAt: s.startedAt, BootedWorkers: 1, Restart: "none", Total: total,
		WorkerStatus: []cluster.WorkerStatus{{PID: os.Getpid(), Stage: "booted", Booted: true, StartedAt: s.startedAt, LastStatus: total}},
	}
}
