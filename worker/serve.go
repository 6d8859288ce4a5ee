package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/catamount-server/catamount/internal/page"
)

// ServeOptions say how a worker serves, and how it ends.
type ServeOptions struct {
	// Options of the Server; Page, Slot, Index and MemoryLimitShared are the
	// link's business.
	Options Options
	// PingInterval is how often the master hears that the worker is alive;
	// 0: 5 s.
	PingInterval time.Duration
	// StreamGrace is how long, once the worker is to leave, handlers have that
	// have taken their connection over or have begun to send; then their
	// contexts end and nobody waits for the former any more.
	StreamGrace time.Duration
	// OrphanGrace is how long running requests have when the master has gone.
	OrphanGrace time.Duration
	// OnDrain is called when the worker is to leave, each in a goroutine of its
	// own. The context ends with StreamGrace.
	OnDrain []func(context.Context)
	// BeforeShutdown is called when everything has been served, before the
	// worker ends.
	BeforeShutdown func()
	// OutOfBand, when set, is Options.OutOfBand.
	OutOfBand func()
	// Logger of the worker's own life; nil is Options.Logger.
	Logger *slog.Logger
}

// Serve serves the inherited listeners until the master, a SIGTERM or the end
// of ctx ends it. It returns nil when everything was orderly: the process then
// exits with status 0. An error from before it serves has been told to the
// master: status 3.
func (l *Link) Serve(ctx context.Context, o ServeOptions) error {
	if o.Logger == nil {
		o.Logger = o.Options.Logger
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.PingInterval <= 0 {
		o.PingInterval = 5 * time.Second
	}
	terminate := make(chan os.Signal, 2)
	signal.Notify(terminate, syscall.SIGTERM)
	defer signal.Stop(terminate)
	s, err := l.start(&o)
	if err != nil {
		l.Fail(err)
		return err
	}
	l.slot.Booted.Store(page.Now())
	l.slot.State.Store(uint32(page.Live))
	if err := l.tell(KindBoot, l.inheritance.Index, ""); err != nil {
		o.Logger.Error("the master could not be told that the worker serves", "err", err)
	}
	h := newHeart(l, s, o.PingInterval)
	defer h.stop()
	leaving := &departure{link: l, server: s, options: &o, terminate: terminate, done: ctx.Done(), heart: h}
	return leaving.run(leaving.wait())
}

// start makes the server and opens the listeners.
func (l *Link) start(o *ServeOptions) (*Server, error) {
	if l.slot == nil {
		return nil, fmt.Errorf("worker: a process of the role %q with page %d serves nothing", l.inheritance.Role, l.inheritance.Page)
	}
	l.serving.Store(true)
	select {
	case <-l.masterGone:
		return nil, errors.New("worker: the master has gone")
	default:
	}
	o.Options.Page, o.Options.Slot, o.Options.Index = l.page, l.slot, l.inheritance.Index
	o.Options.MemoryLimitShared = l.inheritance.MemoryLimit
	if o.OutOfBand != nil {
		o.Options.OutOfBand = o.OutOfBand
	}
	s, err := NewServer(o.Options)
	if err != nil {
		return nil, err
	}
	for _, inherited := range l.inheritance.Listeners {
		if err := s.serveShared(inherited); err != nil {
			_ = s.Close()
			return nil, fmt.Errorf("worker: inherited listener %s: %w", inherited.Bind, err)
		}
	}
	if queue := l.inheritance.HandOver[1]; queue >= 0 {
		if err := s.takeFrom(queue); err != nil {
			_ = s.Close()
			return nil, fmt.Errorf("worker: inherited hand-over sockets: %w", err)
		}
	}
	return s, nil
}

// serveShared makes the reactor watch a listener that siblings have as well.
func (s *Server) serveShared(inherited InheritedListener) error {
	l, err := newSharedListener(inherited.FD)
	if err != nil {
		return err
	}
	entry, err := s.register(s.options.BaseContext, l)
	if err != nil {
		return err
	}
	entry.bind = inherited.Bind
	return s.watch(entry)
}

// takeFrom makes the reactor take over connections that siblings hand over.
func (s *Server) takeFrom(queue int) error {
	l, err := newHandOverQueue(queue)
	if err != nil {
		return err
	}
	entry, err := s.register(s.options.BaseContext, l)
	if err != nil {
		return err
	}
	entry.accept = func(fd uintptr) { entry.failed = s.takeHandedOver(entry, int(fd)) }
	return s.watch(entry)
}

func (s *Server) watch(entry *listener) error {
	ready := make(chan error, 1)
	if err := s.reactor.Do(func() { ready <- s.openListener(entry) }); err != nil {
		return err
	}
	return <-ready
}
