package worker

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/catamount-server/catamount/internal/page"
)

// heart tells the master that the worker is alive, and writes to the shared page
// what others may want to know of it. The master hears of it only as long as the
// reactor itself comes by and the pool's dispatcher does its work: a worker whose
// reactor hangs falls silent, though other goroutines live on. Handlers that hang
// are no reason to: they have deadlines of their own.
type heart struct {
	link     *Link
	server   *Server
	interval time.Duration
	first    uint64 // requests that predecessors in this slot have begun

	beaten    atomic.Bool // the reactor has come by since the last beat
	dispatch  dispatch
	saidIdle  bool
	idleSince time.Time
	idleServe uint64

	quit, ended chan struct{}
	once        sync.Once
}

// idleAfter is how long a worker has no request before it says that it is idle.
const idleAfter = time.Minute

// titlePeriod is how often the title and what is beside it are renewed.
const titlePeriod = time.Second

func newHeart(l *Link, s *Server, interval time.Duration) *heart {
	h := &heart{link: l, server: s, interval: interval, first: s.stats.requests(), idleSince: time.Now(),
		quit: make(chan struct{}), ended: make(chan struct{})}
	// For top and the kernel's log: 15 bytes, and for show.
	_ = os.WriteFile("/proc/self/comm", fmt.Appendf(nil, "worker %d", l.inheritance.Index), 0)
	go h.run()
	return h
}

func (h *heart) stop() {
	h.once.Do(func() { close(h.quit) })
	<-h.ended
}

func (h *heart) run() {
	defer close(h.ended)
	tick := time.NewTicker(min(h.interval, titlePeriod))
	defer tick.Stop()
	lastPing := time.Now()
	h.beat()
	for {
		select {
		case now := <-tick.C:
			if alive := h.beaten.Load() && h.dispatch.works(h.server); alive {
				h.link.slot.PoolAt.Store(page.Now())
				// Half a tick early rather than half a tick late.
				if now.Sub(lastPing) >= h.interval-min(h.interval, titlePeriod)/2 {
					lastPing = now
					_ = h.link.tell(KindPing, h.link.inheritance.Index, "")
				}
			}
			h.noteIdle(now)
			h.beat()
		case <-h.quit:
			return
		}
	}
}

// beat asks the reactor to come by, and renews what the page says.
func (h *heart) beat() {
	s, slot := h.server, h.link.slot
	h.beaten.Store(false)
	_ = s.reactor.Do(func() {
		slot.ReactorAt.Store(page.Now())
		h.beaten.Store(true)
		s.publishConnections(&statsIn(slot).gauges)
	})
	pool := s.pool.Stats()
	g := &statsIn(slot).gauges
	g.backlog.Store(int64(pool.Backlog))
	g.backlogMax.Store(int64(pool.BacklogMax))
	g.running.Store(int64(pool.Running))
	g.heldMemory.Store(s.heldMemory.Load())
	g.heldFiles.Store(s.heldFiles.Load())
	g.heldBodies.Store(s.blocks.used.Load())
	slot.Served.Store(s.stats.requests() - h.first)
	h.showTitle(pool.Busy, pool.MaxThreads)
}

func (h *heart) showTitle(busy, places int) {
	state := ""
	if h.server.draining.Load() {
		state = " leaving"
	}
	h.link.title.Set(fmt.Sprintf("%s %d/%d%s", h.link.titleBase, busy, places, state))
}

// noteIdle tells the master, once, when no request has come for a while.
func (h *heart) noteIdle(now time.Time) {
	switch served := h.link.slot.Served.Load(); {
	case served != h.idleServe || h.link.slot.Busy.Load() > 0:
		h.idleServe, h.idleSince, h.saidIdle = served, now, false
	case !h.saidIdle && now.Sub(h.idleSince) >= idleAfter:
		h.saidIdle = true
		_ = h.link.tell(KindIdle, h.link.inheritance.Index, now.Sub(h.idleSince).String())
	}
}

// dispatch watches the pool's dispatcher: whether requests for which there are
// places get them.
type dispatch struct {
	begun     uint64
	waiting   bool
	outOfBand uint64
}

// works looks once. Two looks in a row that find places free, requests waiting
// for them and none begun in between are a dispatcher that hangs. One that holds
// its lock for ever makes the caller hang instead. The hook for work out of band
// keeps the dispatcher from its work, and everybody out: so two looks that find
// the same call of it are one that hangs as well.
func (d *dispatch) works(s *Server) bool {
	pool, begun, outOfBand := s.pool.Stats(), s.stats.requests(), s.outOfBand.Load()
	waiting := pool.Backlog > 0 && pool.PoolCapacity > 0
	hangs := waiting && d.waiting && begun == d.begun || outOfBand%2 == 1 && outOfBand == d.outOfBand
	d.begun, d.waiting, d.outOfBand = begun, waiting, outOfBand
	return !hangs
}
