package catamount

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// bootSingle boots an application in single mode, as far as its listeners.
func bootSingle(t *testing.T, config Config, app App, signals <-chan os.Signal) (stopped bool, err error) {
	t.Helper()
	config.Logger = slog.New(slog.DiscardHandler)
	l, err := NewLauncher(config, app)
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	l.stderr = &stderr
	life, drain := context.WithCancel(t.Context())
	defer drain()
	stopped, err = (&single{Launcher: l, signals: signals}).bootOrStop(life)
	if signals != nil && !strings.Contains(stderr.String(), "waitForTheEnd") {
		t.Errorf("QUIT has not shown where the application hangs: %s", stderr.String())
	}
	return stopped, err
}

// TestStopInBeforeWorkerShutdown: a hook that hangs at the end shows where, and
// keeps nobody from stopping the process. The log names signals as with workers.
func TestStopInBeforeWorkerShutdown(t *testing.T) {
	ended, hangs, signals := make(chan struct{}), make(chan struct{}), make(chan os.Signal)
	defer close(ended)
	go func() {
		<-hangs
		for _, sig := range []os.Signal{syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGTERM} {
			signals <- sig
		}
	}()
	var stderr, logs strings.Builder
	l := &Launcher{logger: slog.New(slog.NewTextHandler(&logs, nil)), stderr: &stderr, app: App{
		BeforeWorkerShutdown: func(*Worker) { close(hangs); waitForTheEnd(ended) },
	}}
	(&single{Launcher: l, signals: signals}).beforeShutdown()
	if !strings.Contains(stderr.String(), "waitForTheEnd") {
		t.Errorf("QUIT has not shown where the hook hangs: %s", stderr.String())
	}
	for _, words := range []string{"signal=SIGUSR1", "cause=SIGTERM"} {
		if !strings.Contains(logs.String(), words) {
			t.Errorf("the log has no %s:\n%s", words, logs.String())
		}
	}
}

// TestStopWhileBooting: an application that hangs at its start can be stopped,
// and shows where it hangs.
func TestStopWhileBooting(t *testing.T) {
	for name, app := range map[string]func(hang func()) App{
		"Handler": func(hang func()) App {
			return App{Handler: func(*Worker) (http.Handler, error) { hang(); return nil, nil }}
		},
		"Preload": func(hang func()) App {
			return App{
				Preload: func(ctx context.Context, _ *Preloader) error { hang(); <-ctx.Done(); return context.Cause(ctx) },
				Handler: func(*Worker) (http.Handler, error) { return nil, nil },
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			signals, ended := make(chan os.Signal), make(chan struct{})
			defer close(ended)
			hangs := make(chan struct{})
			go func() {
				<-hangs
				for _, sig := range []os.Signal{syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGTERM} {
					signals <- sig
				}
			}()
			stopped, err := bootSingle(t, Config{}, app(func() { close(hangs); waitForTheEnd(ended) }), signals)
			if !stopped || err != nil {
				t.Errorf("stopped %t, %v", stopped, err)
			}
		})
	}
}

// waitForTheEnd is a name to look for among the stacks.
// TestContextEndsWhileBooting: it is an orderly end, as that by a signal, whether
// the application heeds it or not.
func TestContextEndsWhileBooting(t *testing.T) {
	for name, heeds := range map[string]bool{"heeded": true, "not heeded": false} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan struct{})
			defer close(ended)
			ctx, cancel := context.WithCancel(t.Context())
			app := App{Handler: func(w *Worker) (http.Handler, error) {
				cancel()
				if !heeds {
					waitForTheEnd(ended)
				}
				<-w.Context().Done()
				return nil, w.Context().Err()
			}}
			if err := Run(ctx, Config{Binds: []string{"tcp://127.0.0.1:0"}, Logger: slog.New(slog.DiscardHandler)}, app); err != nil {
				t.Error(err)
			}
		})
	}
}

func waitForTheEnd(end <-chan struct{}) { <-end }

// TestPreloadTimeoutHere: the limit holds where there is no process to kill too.
func TestPreloadTimeoutHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := bootSingle(t, Config{PreloadTimeout: time.Second}, App{
			Preload: func(ctx context.Context, _ *Preloader) error { <-ctx.Done(); return context.Cause(ctx) },
			Handler: func(*Worker) (http.Handler, error) { return nil, nil },
		}, nil)
		if err == nil || !strings.Contains(err.Error(), "Config.PreloadTimeout (1s)") {
			t.Errorf("error %v", err)
		}
	})
}

func TestHandlerThatEndsItsGoroutine(t *testing.T) {
	stopped, err := bootSingle(t, Config{}, App{Handler: func(*Worker) (http.Handler, error) { runtime.Goexit(); return nil, nil }}, nil)
	if stopped || err != errBootEnded {
		t.Errorf("stopped %t, %v", stopped, err)
	}
}
