package cluster

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/catamount-server/catamount/internal/page"
)

// handOverTo executes the new program in this process. It returns only if that
// fails.
func (c *Cluster) handOverTo(p *program) {
	for _, h := range slices.Clone(c.handles) {
		c.stopReader(&h.child)
	}
	c.log.Info("the new program takes over", "phase", p.phase, "pid", os.Getpid())
	release := c.env.hold()
	if c.options.State != "" {
		c.env.forget(c.signals) // so that os/signal's own thread, the last one, blocks them as well
	}
	err := c.executeNext(p)
	c.env.notify(c.signals, masterSignals...)
	release()
	for _, h := range c.handles {
		if h.closedAt.IsZero() {
			_ = h.child.messages.(interface{ SetReadDeadline(time.Time) error }).SetReadDeadline(time.Time{})
			c.startReader(h)
		}
	}
	c.abandon(err)
}

// executeNext returns nil when a signal has come that says to stop.
func (c *Cluster) executeNext(p *program) error {
	c.takeSignals()
	if !c.stop.begun.IsZero() {
		return nil
	}
	s := c.snapshot(p)
	fd, err := s.write()
	if err != nil {
		return err
	}
	defer closeDescriptor(fd)
	argv := append([]string{padTitle(c.title("master"))}, c.options.Argv[1:]...)
	return s.execute(c.env.exec, fd, p.exe, argv, append(c.options.cleanEnv(), fmt.Sprintf("%s=%d", StateVariable, fd)))
}

// takeSignals does what the signals ask for that have come already.
func (c *Cluster) takeSignals() {
	for {
		select {
		case s := <-c.signals:
			c.signal(s)
		default:
			return
		}
	}
}

// snapshot is what the next program needs to know.
func (c *Cluster) snapshot(next *program) *state {
	s := &state{
		Format: stateFormat,
		Argv0:  c.options.Argv[0], Path: c.options.Path, Directory: c.options.Directory,
		StartedAt: c.startedAt, Counts: c.counts,
		Configured: c.options.Workers, Wanted: c.wanted, LastPhase: c.lastPhase, Again: c.again, Files: c.options.Files,
		Page: c.target.page.fd, HandOver: c.handOver, Counters: make(map[string]uint64),
		Total: counted(c.total()), Base: c.base,
		Target: slices.Index(c.programs, c.target), Next: slices.Index(c.programs, next),
	}
	for name, value := range c.target.page.Counters() {
		s.Counters[name] = value
	}
	for _, l := range c.binder.listeners {
		s.Listeners = append(s.Listeners, stateListener{Bind: l.bind.String(), FD: l.fd, File: l.file})
	}
	for _, p := range c.programs {
		s.Programs = append(s.Programs, stateProgram{
			Phase: p.phase, Exe: p.exe, Preload: p.preload, Directory: p.directory, Name: p.name, Proven: p.proven,
		})
	}
	for _, h := range c.handles {
		w := stateWorker{
			Index: h.Index, PID: h.PID, Program: slices.Index(c.programs, h.program),
			Pipe: h.child.pipe, Check: h.child.check, Unread: h.child.unread,
			Stage: h.stage, Hello: h.hello, StartedAt: h.startedAt, BootedAt: h.bootedAt,
			MaxRequests: h.maxRequests, MaxAge: h.maxAge, MaxMemory: h.maxMemory,
		}
		if h.stage == Terminating {
			w.TimeLeft = time.Until(h.deadline)
		}
		s.Workers = append(s.Workers, w)
	}
	return s
}

// adopt takes over what the program before has left: its workers first serve
// on, and are then replaced as in a phased restart.
func (c *Cluster) adopt(s *state, fd int) error {
	if err := s.check(); err != nil {
		return err
	}
	if err := s.closeOnExec(true); err != nil {
		return fmt.Errorf("%s: %w", StateVariable, err)
	}
	// Until all of it is known to be usable, nothing is this program's: if it
	// cannot take over, the one before goes on with the same descriptors.
	if err := c.adoptListeners(s); err != nil {
		return err
	}
	old, err := c.adoptPage(s)
	var directory int
	var name string
	if err == nil {
		directory, name, err = c.nextDirectory(s)
	}
	if err != nil {
		c.binder.letGo(s)
		c.pages = nil // this process ends, or is another program's again
		return err
	}
	closeDescriptor(fd)
	c.options.Argv = append([]string{s.Argv0}, c.options.Argv[1:]...)
	c.startedAt, c.counts, c.lastPhase, c.handOver = s.StartedAt, s.Counts, s.LastPhase, s.HandOver
	c.again = s.Again
	switch {
	case s.rolledBack != "": // whatever the next program's configuration says
		c.wanted = s.Wanted
	case s.Configured == c.options.Workers: // what has become of it by scaling stays
		c.wanted = min(max(s.Wanted, c.options.MinWorkers), c.options.MaxWorkers)
	}
	for _, p := range s.Programs {
		c.programs = append(c.programs, &program{
			phase: p.Phase, exe: p.Exe, preload: p.Preload, directory: p.Directory, name: p.Name, proven: p.Proven, page: old,
		})
	}
	c.target = c.programs[s.Target]
	if s.Next >= 0 {
		c.programs[s.Next].page = c.page()
	}
	if directory >= 0 {
		next := c.programs[s.Next]
		closeDescriptor(next.directory)
		next.directory, next.name = directory, name
	}
	c.adoptWorkers(s)
	switch {
	case s.rolledBack != "":
		c.counts.FailedRestarts++
		c.log.Error("hot restart failed: the program before goes on", "phase", c.target.phase, "err", s.rolledBack)
		c.closeUnused()
	case s.Next >= 0:
		c.restart = &restart{kind: afterHot, program: c.programs[s.Next], began: time.Now()}
	}
	return nil
}

// nextDirectory opens where the workers of this program are to run, if that is
// not where the program before, which has opened it, would have them; -1: it is.
func (c *Cluster) nextDirectory(s *state) (fd int, name string, err error) {
	if s.Next < 0 || s.rolledBack != "" || c.options.Directory == s.Directory {
		return -1, "", nil
	}
	return openDirectory(c.options.Directory)
}

// adoptListeners finds the sockets of the configured binds, and opens those
// that are new. Sockets of binds that are not configured any more stay until
// the last worker that serves them has been replaced.
func (c *Cluster) adoptListeners(s *state) error {
	c.binder = &Binder{}
	left := slices.Clone(s.Listeners)
	binds := c.options.Binds
	if s.rolledBack != "" {
		// The configuration may be the one with which the other could not start.
		binds = nil
		for _, l := range left {
			bind, err := ParseBind(l.Bind)
			if err != nil {
				return fmt.Errorf("%s: bind %q: %w", StateVariable, l.Bind, err)
			}
			binds = append(binds, bind)
		}
	}
	take := func(i int, bind Bind) error {
		l, err := adoptListener(bind, left[i].FD, left[i].File)
		if err != nil {
			return fmt.Errorf("%s: %w", StateVariable, err)
		}
		c.binder.listeners = append(c.binder.listeners, l)
		left = slices.Delete(left, i, i+1)
		return nil
	}
	err := func() error {
		for _, bind := range binds {
			i := slices.IndexFunc(left, func(l stateListener) bool {
				b, err := ParseBind(l.Bind)
				return err == nil && b.Network == bind.Network && b.Address == bind.Address
			})
			if i >= 0 {
				if err := take(i, bind); err != nil {
					return err
				}
				continue
			}
			l, err := bind.listen(context.Background())
			if err != nil {
				return fmt.Errorf("cluster: cannot listen on %s: %w", bind, err)
			}
			c.binder.listeners = append(c.binder.listeners, l)
		}
		c.addrs = c.binder.Addrs()
		for len(left) > 0 {
			bind, err := ParseBind(left[0].Bind)
			if err != nil {
				return fmt.Errorf("%s: bind %q: %w", StateVariable, left[0].Bind, err)
			}
			if err := take(0, bind); err != nil {
				return err
			}
			c.binder.listeners[len(c.binder.listeners)-1].retired = true
		}
		return nil
	}()
	if err != nil {
		c.binder.letGo(s)
	}
	return err
}

// letGo closes what is not of the state, and forgets the rest.
func (b *Binder) letGo(s *state) {
	b.listeners = slices.DeleteFunc(b.listeners, func(l *boundListener) bool {
		return slices.ContainsFunc(s.Listeners, func(of stateListener) bool { return of.FD == l.fd })
	})
	_ = b.Close()
}

// adoptPage takes the shared page over. If it was made for another program, or
// has no room for as many workers as there may be now, workers of the new
// program get a new one, which goes on with the application's counters.
func (c *Cluster) adoptPage(s *state) (old *sharedPage, err error) {
	c.base = s.Base
	old = &sharedPage{fd: s.Page}
	old.Page, err = page.Open(s.Page, c.options.StatsLayout)
	if err == nil && old.Slots() >= c.slotCount() {
		old.slots = make([]slotRecord, old.Slots())
		c.pages = append(c.pages, old)
		return old, nil
	}
	var why string
	if err != nil {
		// The master's words for old workers go where nobody reads them. They
		// take a TERM without a command for one that hands over.
		why = err.Error()
		if old.Page, err = page.Create(page.MaxSlots, page.Layout{}); err != nil {
			return nil, err
		}
		old.foreign = true
		c.base = s.Total // what its workers still count is lost
	} else {
		why = fmt.Sprintf("it has %d slots, want %d", old.Slots(), c.slotCount())
	}
	old.slots = make([]slotRecord, old.Slots())
	c.pages = append(c.pages, old)
	if err := c.newPage(); err != nil {
		return nil, err
	}
	c.log.Info("the new workers get a shared page of their own", "reason", why)
	for name, value := range s.Counters {
		if counter, err := c.page().Counter(name); err == nil {
			counter.Add(value)
		}
	}
	return old, nil
}

func (c *Cluster) adoptWorkers(s *state) {
	now := time.Now()
	for _, w := range s.Workers {
		h := &WorkerHandle{
			Index: w.Index, PID: w.PID, program: c.programs[w.Program], page: c.programs[w.Program].page, hello: w.Hello,
			child: child{
				pid: w.PID, messages: os.NewFile(uintptr(w.Pipe), "|messages"), pipe: w.Pipe, check: w.Check, unread: w.Unread,
			},
			stage: w.Stage, startedAt: w.StartedAt, bootedAt: w.BootedAt, lastCheckin: now,
			maxRequests: w.MaxRequests, maxAge: w.MaxAge, maxMemory: w.MaxMemory,
		}
		if w.Stage == Terminating {
			h.terminatedAt, h.deadline = now, now.Add(w.TimeLeft)
		}
		c.handles = append(c.handles, h)
	}
}

// closeRetired closes the sockets of binds that are not configured any more.
func (b *Binder) closeRetired() {
	gone := &Binder{}
	b.listeners = slices.DeleteFunc(b.listeners, func(l *boundListener) bool {
		if l.retired {
			gone.listeners = append(gone.listeners, l)
		}
		return l.retired
	})
	_ = gone.Close()
}
