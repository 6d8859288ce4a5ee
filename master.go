package catamount

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/catamount-server/catamount/cluster"
	"github.com/catamount-server/catamount/worker"
)

// runMaster runs this process as the master (Puma's cluster.rb): it starts the
// workers and serves nothing itself.
func (l *Launcher) runMaster(ctx context.Context, signals chan os.Signal) error {
	options := l.clusterOptions(l.state)
	var before []string
	if l.state == "" {
		options.Signals = signals
	} else {
		before = cluster.FilesBefore(l.state) // New closes the state
	}
	c, err := cluster.New(options)
	if err != nil {
		return err
	}
	if l.state != "" {
		removeOthers(before, options.Files)
		// The cluster has a channel of its own, and lets go of it at its end. One
		// who cannot wait and sends another of these must not prevent that the
		// pidfile is removed.
		signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	}
	l.mu.Lock()
	l.cluster = c
	l.mu.Unlock()
	if l.state == "" {
		l.config.announce(l.stdout, l.logger, urlsOf(c.Addrs()))
	}
	return c.Run(ctx)
}

func (l *Launcher) clusterOptions(state string) cluster.Options {
	r := l.config
	culling := cluster.Youngest
	if r.CullOldest {
		culling = cluster.Oldest
	}
	return cluster.Options{
		Logger: l.logger, State: state, Files: l.files(),
		Workers: r.workers, MinWorkers: r.MinWorkers, MaxWorkers: r.MaxWorkers,
		Binds: r.binds, Directory: r.Directory, Tag: r.Tag,
		Preload: l.app.Preload != nil, PreloadTimeout: orNever(r.PreloadTimeout),
		StatsLayout:   worker.StatsLayout(),
		CheckInterval: r.WorkerCheckInterval, WorkerTimeout: orNever(r.WorkerTimeout), BootTimeout: orNever(r.WorkerBootTimeout),
		ShutdownTimeout: orNever(r.WorkerShutdownTimeout), ShutdownDelay: r.ShutdownDelay,
		MaxBootFailures: r.MaxBootFailures, Culling: culling,
		MaxRequests: uint64(max(r.MaxRequests, 0)), MaxAge: max(r.MaxAge, 0), MaxMemory: max(r.MaxMemory, 0), Jitter: r.RecycleJitter,
		Hooks: cluster.Hooks{
			BeforeFork: l.app.BeforeFork, AfterBooted: l.app.AfterBooted,
			AfterWorkerShutdown: l.app.AfterWorkerShutdown, BeforeRestart: l.app.BeforeRestart,
		},
	}
}

// orNever: what is off here is very late for the master.
func orNever(d time.Duration) time.Duration {
	if d == 0 {
		return 100 * 365 * 24 * time.Hour
	}
	return d
}

// listen opens the sockets of single mode.
func (l *Launcher) listen(ctx context.Context) (binder *cluster.Binder, listeners []net.Listener, urls []string, err error) {
	if binder, err = cluster.Listen(ctx, l.config.binds); err != nil {
		return nil, nil, nil, err
	}
	if listeners, err = binder.Listeners(); err != nil {
		return nil, nil, nil, fmt.Errorf("%w; %w", err, binder.Close())
	}
	return binder, listeners, urlsOf(binder.Addrs()), nil
}

// urlsOf names addresses as one would type them into a client.
func urlsOf(addrs []net.Addr) (urls []string) {
	for _, addr := range addrs {
		if addr.Network() == "unix" {
			urls = append(urls, "unix://"+addr.String())
		} else {
			urls = append(urls, "http://"+addr.String())
		}
	}
	return urls
}
