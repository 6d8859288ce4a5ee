package catamount_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/catamount-server/catamount"
)

// diary notes what has happened, in order.
type diary struct {
	mu      sync.Mutex
	entries []string
}

func (d *diary) note(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries = append(d.entries, what)
}

// TestSingleMode runs an application with everything that it can have in this
// process, and stops it.
func TestSingleMode(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "app.sock")
	events, booted, idle := &diary{}, make(chan struct{}), make(chan struct{})
	logs := &logBook{}
	l, err := catamount.NewLauncher(catamount.Config{
		Binds: []string{"unix://" + socket}, Logger: slog.New(logs), LogRequests: true,
	}, catamount.App{
		Preload: func(_ context.Context, p *catamount.Preloader) error {
			events.note("preload")
			return errors.Join(p.Put("greeting", []byte("Hello")), catamount.PreloadSlice(p, "primes", []int32{2, 3, 5}))
		},
		BeforeFork:       func() { events.note("before fork") },
		BeforeWorkerBoot: func(*catamount.Worker) { events.note("before worker boot") },
		Handler: func(w *catamount.Worker) (http.Handler, error) {
			events.note("handler")
			greeting, err := w.Preloaded().Bytes("greeting")
			if err != nil {
				return nil, err
			}
			primes, err := catamount.PreloadedSlice[int32](w.Preloaded(), "primes")
			if err != nil || !slices.Equal(primes, []int32{2, 3, 5}) {
				t.Errorf("primes %v, %v", primes, err)
			}
			hits, err := w.Counter("hits")
			if err != nil {
				return nil, err
			}
			w.OnDrain(func(context.Context) { events.note("drain") })
			return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				hits.Add(1)
				_, _ = rw.Write(greeting)
			}), nil
		},
		AfterBooted:          func() { close(booted) },
		OutOfBand:            func(*catamount.Worker) { close(idle) },
		BeforeWorkerShutdown: func(w *catamount.Worker) { <-w.Context().Done(); events.note("before worker shutdown") },
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Stats(); !errors.Is(err, catamount.ErrNoMaster) {
		t.Errorf("Stats before Run: %v", err)
	}
	ran := make(chan error, 1)
	go func() { ran <- l.Run(t.Context()) }()
	waitFor(t, booted)
	conn := dial(t, "unix", socket)
	if got := talk(t, conn, "GET /fish?secret=1 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"); !strings.HasSuffix(got, "\r\n\r\nHello") {
		t.Errorf("answer %q", got)
	}
	waitFor(t, idle)
	stats, err := l.Stats()
	if err != nil || stats.Total.RequestsCount != 1 || len(stats.WorkerStatus) != 1 {
		t.Errorf("%+v, %v", stats, err)
	}
	if err := l.PhasedRestart(); !errors.Is(err, catamount.ErrNoMaster) {
		t.Errorf("PhasedRestart: %v", err)
	}
	if err := l.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := waitFor(t, ran); err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := l.Stop(); !errors.Is(err, catamount.ErrNoMaster) {
		t.Errorf("Stop after the end: %v", err)
	}
	if _, err := l.Stats(); !errors.Is(err, catamount.ErrNoMaster) {
		t.Errorf("Stats after the end: %v", err)
	}
	want := []string{"preload", "before worker boot", "handler", "drain", "before worker shutdown"}
	until(t, "OnDrain has been called", func() bool { events.mu.Lock(); defer events.mu.Unlock(); return len(events.entries) == len(want) })
	slices.Sort(want[3:])
	slices.Sort(events.entries[3:])
	if !slices.Equal(events.entries, want) {
		t.Errorf("what happened: %q, want %q", events.entries, want)
	}
	if line := logs.line("request"); line["path"] != "/fish" || line["status"] != "200" || line["bytes"] != "5" {
		t.Errorf("the request's log line: %v", line)
	}
}

// TestSecondStopIsForHandlersThatHang: a handler that heeds nothing does not keep
// single mode from ending at once when it is told to a second time.
func TestSecondStopIsForHandlersThatHang(t *testing.T) {
	socket, logs := filepath.Join(t.TempDir(), "app.sock"), &logBook{}
	serving, finish, finished := make(chan struct{}), make(chan struct{}), make(chan struct{})
	l, err := catamount.NewLauncher(catamount.Config{Binds: []string{"unix://" + socket}, Logger: slog.New(logs)}, catamount.App{
		Handler: func(*catamount.Worker) (http.Handler, error) {
			return http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				defer close(finished)
				close(serving)
				<-finish
			}), nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- l.Run(t.Context()) }()
	until(t, "it listens", func() bool { _, err := os.Stat(socket); return err == nil })
	conn := dial(t, "unix", socket)
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: test\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, serving)
	for range 2 {
		if err := l.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	if err := waitFor(t, ran); err != nil {
		t.Errorf("Run: %v", err)
	}
	if got, _ := io.ReadAll(conn); len(got) > 0 {
		t.Errorf("the request that was cut off got %q", got)
	}
	if line := logs.line("Ending while handlers run on that do not heed their contexts"); line["handlers"] != "1" {
		t.Errorf("the log line: %v", line)
	}
	close(finish)
	waitFor(t, finished)
}

// TestHooksThatPanic: what goes wrong in a hook takes nothing from those whom
// the server serves.
func TestHooksThatPanic(t *testing.T) {
	socket, logs := filepath.Join(t.TempDir(), "app.sock"), &logBook{}
	serving, finish := make(chan struct{}), make(chan struct{})
	l, err := catamount.NewLauncher(catamount.Config{Binds: []string{"unix://" + socket}, Logger: slog.New(logs)}, catamount.App{
		Handler: func(w *catamount.Worker) (http.Handler, error) {
			w.OnDrain(func(context.Context) { panic("nobody to tell") })
			return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				close(serving)
				<-finish
				_, _ = io.WriteString(rw, "Hello")
			}), nil
		},
		AfterBooted:          func() { panic("booted too early") },
		BeforeWorkerShutdown: func(*catamount.Worker) { panic("not yet") },
	})
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- l.Run(t.Context()) }()
	panicked := func(hook string) func() bool {
		return func() bool {
			return slices.ContainsFunc(logs.all(), func(l logLine) bool { return l.message == "the application panicked" && l.attrs["in"] == hook })
		}
	}
	until(t, "AfterBooted has panicked", panicked("AfterBooted"))
	conn, answer := dial(t, "unix", socket), make(chan string, 1)
	go func() { answer <- talk(t, conn, "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n") }()
	waitFor(t, serving)
	if err := l.Stop(); err != nil {
		t.Fatal(err)
	}
	until(t, "OnDrain has panicked", panicked("OnDrain"))
	close(finish)
	if got := waitFor(t, answer); !strings.HasSuffix(got, "\r\n\r\nHello") {
		t.Errorf("the request that ran got %q", got)
	}
	if err := waitFor(t, ran); err != nil {
		t.Errorf("Run: %v", err)
	}
	until(t, "BeforeWorkerShutdown has panicked", panicked("BeforeWorkerShutdown"))
}

// line returns what a message says.
func (b *logBook) line(message string) map[string]string {
	for _, line := range b.all() {
		if line.message == message {
			return line.attrs
		}
	}
	return nil
}

func TestApplicationsThatCannotStart(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	handler := func(*catamount.Worker) (http.Handler, error) { return http.NotFoundHandler(), nil }
	for _, c := range []struct {
		name   string
		config catamount.Config
		app    catamount.App
		want   string
	}{
		{"no handler", catamount.Config{}, catamount.App{}, "App.Handler"},
		{"handler's error", catamount.Config{}, catamount.App{
			Handler: func(*catamount.Worker) (http.Handler, error) { return nil, io.ErrClosedPipe }}, io.ErrClosedPipe.Error()},
		{"handler's panic", catamount.Config{}, catamount.App{
			Handler: func(*catamount.Worker) (http.Handler, error) { panic("no way") }}, "no way"},
		{"nil handler", catamount.Config{}, catamount.App{
			Handler: func(*catamount.Worker) (http.Handler, error) { return nil, nil }}, "no handler"},
		{"preload's error", catamount.Config{}, catamount.App{Handler: handler,
			Preload: func(context.Context, *catamount.Preloader) error { return io.ErrNoProgress }}, io.ErrNoProgress.Error()},
		{"bind", catamount.Config{Binds: []string{"ftp://x"}}, catamount.App{Handler: handler}, `Config.Binds: "ftp://x"`},
		{"impossible bind", catamount.Config{Binds: []string{"tcp://192.0.2.1:80"}}, catamount.App{Handler: handler}, "tcp://192.0.2.1:80"},
		{"workers", catamount.Config{Workers: -2}, catamount.App{Handler: handler}, "Config.Workers: -2"},
		{"worker timeout", catamount.Config{WorkerTimeout: time.Second}, catamount.App{Handler: handler}, "Config.WorkerTimeout: 1s must be longer"},
		{"server", catamount.Config{Server: &catamount.Server{MinThreads: -1}}, catamount.App{Handler: handler}, "Server.MinThreads: -1"},
		{"directory", catamount.Config{Directory: "/nowhere"}, catamount.App{Handler: handler}, "/nowhere"},
		{"pidfile", catamount.Config{Pidfile: "/nowhere/pid"}, catamount.App{Handler: handler}, "pidfile"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.config.Logger = quiet
			if c.config.Binds == nil {
				c.config.Binds = []string{"tcp://127.0.0.1:0"}
			}
			err := catamount.Run(t.Context(), c.config, c.app)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
}
