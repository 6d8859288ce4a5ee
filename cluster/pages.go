package cluster

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/catamount-server/catamount/internal/page"
	"github.com/catamount-server/catamount/worker"
)

// sharedPage is a shared page and what the master remembers of its slots. There
// is one, and after a hot restart that has changed its layout another one for
// the workers from before.
type sharedPage struct {
	*page.Page
	// fd is what workers get.
	fd int
	// foreign: fd was made by a program that lays it out otherwise. Page is then
	// one that nobody else has.
	foreign bool
	slots   []slotRecord // by index
}

// slotRecord is what the master remembers of a slot's workers.
type slotRecord struct {
	crashes   int // in a row
	notBefore time.Time
	program   *program // whose they were
}

// record is what there is to remember for the next worker of a program: another
// one's crashes, in a restart that was given up, are no reason to keep this one
// waiting.
func (p *sharedPage) record(index int, of *program) slotRecord {
	if r := p.slots[index]; r.program == of {
		return r
	}
	return slotRecord{program: of}
}

func (p *sharedPage) close() {
	_ = p.Page.Close()
	if p.foreign {
		closeDescriptor(p.fd)
	}
}

func closeDescriptor(fd int) {
	if fd >= 0 {
		_ = unix.Close(fd)
	}
}

// newPage makes the shared page, with room for as many workers again as there
// may be: they leave while others already take their places.
func (c *Cluster) newPage() error {
	p, err := page.Create(c.slotCount(), c.options.StatsLayout)
	if err != nil {
		return err
	}
	c.pages = append(c.pages, &sharedPage{Page: p, fd: p.FD(), slots: make([]slotRecord, p.Slots())})
	return nil
}

func (c *Cluster) slotCount() int { return 2*c.options.MaxWorkers + 1 }

// page is that of new programs.
func (c *Cluster) page() *sharedPage { return c.pages[len(c.pages)-1] }

// closeOldPages closes those that no program uses any more.
func (c *Cluster) closeOldPages() {
	newest := c.page()
	c.pages = slices.DeleteFunc(c.pages, func(p *sharedPage) bool {
		used := p == newest || slices.ContainsFunc(c.programs, func(of *program) bool { return of.page == p })
		if !used {
			c.base = worker.Add(c.base, counted(c.totalOf(p)))
			p.close()
		}
		return !used
	})
}

// announce writes the words that all workers read.
func (c *Cluster) announce() {
	for _, p := range c.pages {
		g := p.Global()
		g.Live.Store(uint32(c.count(func(h *WorkerHandle) bool { return h.page == p && h.live() })))
		if c.target != nil {
			g.Phase.Store(uint64(c.target.phase))
		}
		if !c.stop.begun.IsZero() {
			g.Stopping.Store(1)
		}
	}
}
