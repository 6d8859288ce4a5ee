package cluster

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/catamount-server/catamount/internal/page"
	"github.com/catamount-server/catamount/worker"
)

// do has the master's goroutine run a function, and waits for it. It returns
// ErrStopped when there is no such goroutine (any more).
func (c *Cluster) do(f func()) error {
	finished := make(chan struct{})
	select {
	case <-c.running:
	case <-c.done:
		return ErrStopped
	}
	select {
	case c.requests <- func() { defer close(finished); f() }:
		<-finished
		return nil
	case <-c.done:
		return ErrStopped
	}
}

// PhasedRestart replaces the workers, one by one, by ones of the program that
// is on the disk now; it returns when that has begun. What comes of it is
// logged, and shows in Stats. Like the signal USR1.
func (c *Cluster) PhasedRestart() error { return c.ask(func() error { return c.beginRestart(phased) }) }

// HotRestart replaces the program of the master as well, in the same process.
// Like the signal USR2.
func (c *Cluster) HotRestart() error { return c.ask(func() error { return c.beginRestart(hot) }) }

// Scale changes the number of workers. A number beyond MinWorkers or MaxWorkers
// is an error. Like TTIN and TTOU, which change it by one.
func (c *Cluster) Scale(workers int) error { return c.ask(func() error { return c.scale(workers) }) }

// ScaleBy changes the number of workers by a difference.
func (c *Cluster) ScaleBy(difference int) error {
	return c.ask(func() error { return c.scale(c.wanted + difference) })
}

// Stop begins an orderly end; Run returns when it is over. The second time it
// skips ShutdownDelay. Like TERM and INT.
func (c *Cluster) Stop() error { return c.do(func() { c.beginStop(nil) }) }

func (c *Cluster) ask(f func() error) (err error) {
	if stopped := c.do(func() { err = f() }); stopped != nil {
		return stopped
	}
	return err
}

// Addrs are the addresses that the server listens on, in the order of the
// binds: from New until the server stops.
func (c *Cluster) Addrs() []net.Addr { return c.addrs }

func (c *Cluster) scale(workers int) error {
	if workers < c.options.MinWorkers || workers > c.options.MaxWorkers {
		err := fmt.Errorf("cluster: %d workers, want %d to %d", workers, c.options.MinWorkers, c.options.MaxWorkers)
		c.log.Warn("the number of workers stays", "workers", c.wanted, "err", err)
		return err
	}
	if workers != c.wanted {
		c.log.Info("the number of workers changes", "from", c.wanted, "to", workers)
		c.wanted = workers
	}
	return nil
}

// inheritance is what every process of the master's gets.
func (c *Cluster) inheritance(role worker.Role, p *program) worker.Inheritance {
	return worker.Inheritance{
		Protocol: worker.Protocol, Role: role, Phase: p.phase,
		Master: os.Getpid(), Argv0: c.options.Argv[0],
		Pipe: -1, Check: -1, Page: -1, Preload: -1, HandOver: [2]int{-1, -1},
	}
}

// serving lists what a worker serves, or served when it died: the oldest
// requests first, and how long each had been running.
func serving(s *page.Slot) []string {
	const most = 16
	requests := s.Requests()
	slices.SortFunc(requests, func(a, b page.Request) int { return cmp.Compare(a.Since, b.Since) })
	var list []string
	for i, r := range requests {
		if i == most {
			return append(list, fmt.Sprintf("and %d more", len(requests)-most))
		}
		age := time.Duration(page.Now() - r.Since).Round(time.Millisecond)
		list = append(list, fmt.Sprintf("%s (%s)", r.Text, age))
	}
	return list
}
