package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/catamount-server/catamount/internal/proctitle"
	"github.com/catamount-server/catamount/worker"
)

// ErrStopped: the cluster has ended, or has never run.
var ErrStopped = errors.New("cluster: it is not running")

// frozenAfter is how much too late the master may be for its next check until
// it concludes that it was not running itself.
const frozenAfter = 2 * time.Second

// Cluster is a master. One goroutine, that of Run, owns all its state; what
// comes from elsewhere comes over channels.
type Cluster struct {
	options Options
	log     *slog.Logger
	env     env

	processTitle *proctitle.Title
	roster

	binder   *Binder
	addrs    []net.Addr
	handOver [2]int
	// base is what was counted in pages that are closed.
	base     worker.Stats
	programs []*program    // all that are open
	pages    []*sharedPage // all that are mapped; the last one is that of new programs

	// restart is what is going on besides supervision; nil: nothing. again is
	// the restart that was asked for meanwhile.
	restart *restart
	again   restartKind
	task    *task // the process that prepares or checks something

	stop struct {
		begun     time.Time // zero: the server is not to stop
		drainAt   time.Time // when workers are told
		drained   bool
		err       error // why, if it is no orderly stop
		closeOnce sync.Once
	}

	announced bool // what is degraded has been said
	lastPhase int
	startedAt time.Time
	expected  time.Time // when the next check is due
	lookAgain time.Time // when a back-off ends
	orphansAt time.Time // when children that are nobody's are to be reaped
	retireAt  time.Time // when to look again who has passed a threshold
	oomKills  uint64
	counts    Counts

	events   chan event
	requests chan func()
	signals  chan os.Signal
	children chan os.Signal // SIGCHLD
	running  chan struct{}  // closed when Run has begun to take requests
	done     chan struct{}  // closed when Run has ended
	readers  sync.WaitGroup
}

// New checks the options and opens what the workers will share: the listening
// sockets, the page, the program. With Options.State it takes all that over from
// the program that ran before in this process; if it cannot, it executes that
// program again and does not return. Run, or Close, gives it all back.
func New(o Options) (*Cluster, error) {
	c, err := newCluster(o, kernel())
	if err != nil && o.State != "" {
		return nil, Rollback(o.State, err)
	}
	return c, err
}

func newCluster(o Options, e env) (*Cluster, error) {
	var (
		before *state
		fd     int
		err    error
	)
	if o.State != "" {
		if before, fd, err = readState(o.State); err != nil {
			return nil, fmt.Errorf("cluster: %w", err)
		}
		// The paths as they were configured: this process may not know any more
		// through which symbolic links it came here.
		setDefault(&o.Path, before.Path)
		setDefault(&o.Directory, before.Directory)
		if before.rolledBack != "" { // with another one the next program may have failed
			o.Directory = before.Directory
		}
	}
	if o, err = o.withDefaults(); err != nil {
		return nil, err
	}
	c := &Cluster{
		options: o, log: o.Logger, env: e,
		handOver: [2]int{-1, -1},
		events:   make(chan event), requests: make(chan func()),
		signals: make(chan os.Signal, 16), children: make(chan os.Signal, 1),
		running: make(chan struct{}), done: make(chan struct{}),
		startedAt: time.Now(),
	}
	c.roster = roster{
		wanted: o.Workers, culling: o.Culling,
		checkInterval: o.CheckInterval, workerTimeout: o.WorkerTimeout, bootTimeout: o.BootTimeout,
	}
	// From here on signals wait for Run, also those that came between the two
	// programs of a hot restart.
	switch {
	case o.Signals != nil:
		c.signals = o.Signals
	case before != nil && earlySignals != nil:
		c.signals = earlySignals
	}
	c.env.notify(c.signals, masterSignals...)
	c.env.notify(c.children, childSignal)
	if before != nil {
		err = c.adopt(before, fd)
	} else {
		err = c.open()
	}
	if err != nil {
		c.release()
		return nil, err
	}
	return c, nil
}

// open makes what the workers share.
func (c *Cluster) open() (err error) {
	if c.binder, err = Listen(context.Background(), c.options.Binds); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	c.addrs = c.binder.Addrs()
	if err := c.newPage(); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	if c.handOver, err = newHandOver(); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	first, err := c.openProgram(0)
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	c.restart = &restart{kind: firstStart, program: first, began: time.Now()}
	return nil
}

func (c *Cluster) openProgram(phase int) (*program, error) {
	p, err := openProgram(c.options.Path, c.options.Directory, phase)
	if err != nil {
		return nil, err
	}
	p.page = c.page()
	c.programs = append(c.programs, p)
	c.lastPhase = max(c.lastPhase, phase)
	return p, nil
}

// frugal makes the garbage collector keep the master small: it has little to
// collect, and its memory is what all workers have less.
func frugal() (restore func()) {
	if os.Getenv("GOGC") != "" {
		return func() {} // who sets it wants it so
	}
	before := debug.SetGCPercent(20)
	return func() { debug.SetGCPercent(before) }
}

// Run starts the workers and serves until ctx is done, Stop is called, or a
// TERM or INT comes; it returns when the last worker has ended: nil, or why the
// first workers could not boot. It may be called once.
func (c *Cluster) Run(ctx context.Context) error {
	select {
	case <-c.done:
		return ErrStopped
	case <-c.running:
		return errors.New("cluster: Run was called before")
	default:
	}
	defer frugal()()
	runtime.LockOSThread() // see hold.go
	defer runtime.UnlockOSThread()
	c.env.allow()
	close(c.running)
	c.begin()
	c.loop(ctx)
	c.stop.closeOnce.Do(func() { close(c.done) })
	c.readers.Wait()
	c.release()
	return c.stop.err
}

func (c *Cluster) begin() {
	c.oomKills = c.env.killedForMemory()
	c.setCommand()
	c.processTitle = proctitle.New("")
	for _, h := range c.handles { // adopted
		c.startReader(h)
	}
	if c.restart == nil || c.restart.kind != firstStart {
		c.beforeFork() // what it did in the program before is gone with that
	}
	if c.restart != nil { // there is none after a rollback
		c.proceed()
	} else {
		c.endRestart() // what was asked for meanwhile
	}
}

// loop is the master's life: it waits for something to happen, and then looks
// at everything.
func (c *Cluster) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	ended := ctx.Done()
	for !c.finished() {
		children := false
		select {
		case e := <-c.events:
			c.handle(e)
		case <-c.children:
			children = true
		case s := <-c.signals:
			c.signal(s)
		case request := <-c.requests:
			request()
		case <-ended:
			ended = nil
			c.beginStop(nil)
		case <-timer.C:
			children = true // a signal may have been merged with another
		}
		// Nobody is judged by what he does because he was told to stop, or whose sign
		// of life has only not been read yet.
		c.takeSignals()
		c.takeEvents()
		now := time.Now()
		c.check(now, children)
		c.expected = c.wakeAt(now)
		timer.Reset(c.expected.Sub(now))
	}
}

// takeEvents handles what has already come.
func (c *Cluster) takeEvents() {
	for {
		select {
		case e := <-c.events:
			c.handle(e)
		default:
			return
		}
	}
}

// check is Puma's check_workers: it looks at all workers and does what is due.
func (c *Cluster) check(now time.Time, children bool) {
	if late := now.Sub(c.expected); !c.expected.IsZero() && late > frozenAfter {
		c.log.Warn("the master itself was not running: all workers get their time anew", "for", late.Round(time.Millisecond))
		c.forgive(now, late)
	}
	if children || c.count(func(h *WorkerHandle) bool { return !h.closedAt.IsZero() }) > 0 {
		c.reap(now)
	}
	for _, v := range c.overdue(now) {
		c.execute(v, now)
	}
	c.checkTask(now)
	c.checkStop()
	if !now.Before(c.retireAt) { // not with each message: it asks the kernel
		c.retireAt = now.Add(time.Second)
		if h, why := c.toRetire(now, c.env.privateMemory); h != nil {
			c.retire(h, why)
		}
	}
	for _, h := range c.toDrain() {
		c.dismiss(h, now)
	}
	orders, again := c.toSpawn(now)
	for _, o := range orders {
		c.spawn(o)
	}
	c.lookAgain = again
	c.announce()
	c.showTitle()
	c.checkRestart(now)
}

// wakeAt is when to look again even if nothing happens.
func (c *Cluster) wakeAt(now time.Time) time.Time {
	next := c.nextCheck(now)
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	sooner(c.lookAgain)
	sooner(c.orphansAt)
	if !c.stop.begun.IsZero() && !c.stop.drained {
		sooner(c.stop.drainAt)
	}
	if c.task != nil {
		sooner(c.task.deadline)
	}
	return next
}

func (c *Cluster) finished() bool {
	return c.stop.drained && len(c.handles) == 0 && c.task == nil
}

// release gives everything back that New has opened.
func (c *Cluster) release() {
	c.stop.closeOnce.Do(func() { close(c.done) })
	if c.options.Signals == nil {
		c.env.forget(c.signals)
	}
	c.env.forget(c.children)
	for _, h := range c.handles {
		h.child.close()
	}
	c.handles = nil
	c.closeListeners()
	for _, p := range c.programs {
		p.close()
	}
	c.programs = nil
	for _, fd := range c.handOver {
		closeDescriptor(fd)
	}
	c.handOver = [2]int{-1, -1}
	for _, p := range c.pages {
		p.close()
	}
	c.pages = nil
}

// Close gives back what New has opened, for when Run is not called.
func (c *Cluster) Close() error {
	select {
	case <-c.running:
		return errors.New("cluster: Close is for one that does not run; call Stop")
	default:
		c.release()
		return nil
	}
}
