package worker

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"testing"
	"time"
)

// The context of a request is over when its handler has returned, and its
// watchers are told.
func TestContextEndsWithTheHandler(t *testing.T) {
	contexts, told := make(chan context.Context, 1), make(chan struct{})
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		if err := r.Context().Err(); err != nil {
			t.Errorf("Err() = %v while the handler runs", err)
		}
		context.AfterFunc(r.Context(), func() { close(told) })
		contexts <- r.Context()
	})
	c := ts.dial()
	c.send(get)
	c.want(200, "")
	waitFor(t, told)
	ctx := waitFor(t, contexts)
	waitFor(t, ctx.Done())
	if err := ctx.Err(); err != context.Canceled || context.Cause(ctx) != context.Canceled {
		t.Errorf("Err() = %v, Cause = %v", err, context.Cause(ctx))
	}
	stopped := make(chan struct{})
	context.AfterFunc(ctx, func() { close(stopped) }) // an ended context runs it at once
	waitFor(t, stopped)
	if addr := ctx.Value(http.LocalAddrContextKey); addr == nil {
		t.Error("no local address afterwards")
	}
}

// Derived contexts of all kinds cost no goroutine.
func TestDerivedContextsStartNoGoroutine(t *testing.T) {
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		before := runtime.NumGoroutine()
		var cancels []func()
		for range 50 {
			a, cancelA := context.WithCancel(r.Context())
			_, cancelB := context.WithTimeout(a, time.Hour)
			_, cancelC := context.WithCancelCause(r.Context())
			stop := context.AfterFunc(r.Context(), func() { t.Error("a stopped AfterFunc ran") })
			cancels = append(cancels, cancelA, cancelB, func() { cancelC(nil) }, func() { stop() })
		}
		if after := runtime.NumGoroutine(); after > before {
			t.Errorf("%d goroutines before, %d with 150 derived contexts", before, after)
		}
		for _, cancel := range cancels {
			cancel()
		}
	})
	c := ts.dial()
	c.send(get)
	c.want(200, "")
}

func TestAfterFuncStops(t *testing.T) {
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		stop := context.AfterFunc(r.Context(), func() { t.Error("it ran") })
		if !stop() {
			t.Error("the first stop says that it had run")
		}
		if stop() {
			t.Error("a second stop says that it stopped it")
		}
	})
	c := ts.dial()
	c.send(get)
	c.want(200, "")
}

// Children end with their parent, for its reason.
func TestDerivedContextsEnd(t *testing.T) {
	entered, children := make(chan struct{}), make(chan context.Context, 1)
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		child, cancel := context.WithTimeout(r.Context(), time.Hour)
		defer cancel()
		close(entered)
		waitFor(t, child.Done())
		children <- child
	})
	c := ts.dial()
	c.send(get)
	waitFor(t, entered)
	c.reset()
	if child := waitFor(t, children); !errors.Is(child.Err(), context.Canceled) {
		t.Errorf("Err() = %v", child.Err())
	}
}

// The context is the base context's child in everything.
func TestBaseContextOfOptions(t *testing.T) {
	cause := errors.New("the cause")
	base, cancel := context.WithCancelCause(context.WithValue(context.Background(), contextTestKey{}, "value"))
	base, stop := context.WithTimeout(base, time.Hour)
	defer stop()
	entered := make(chan struct{})
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if ctx.Value(contextTestKey{}) != "value" || ctx.Value("no such key") != nil {
			t.Error("values do not come through")
		}
		want, _ := base.Deadline()
		if got, ok := ctx.Deadline(); !ok || got != want {
			t.Errorf("Deadline() = %v, %t", got, ok)
		}
		if context.Cause(ctx) != nil {
			t.Errorf("Cause = %v before the end", context.Cause(ctx))
		}
		close(entered)
		waitFor(t, ctx.Done())
		if ctx.Err() != context.Canceled || context.Cause(ctx) != cause {
			t.Errorf("Err() = %v, Cause = %v", ctx.Err(), context.Cause(ctx))
		}
	}, func(o *Options) { o.BaseContext = base })
	c := ts.dial()
	c.send(get)
	waitFor(t, entered)
	cancel(cause)
	c.want(200, "")
}

type contextTestKey struct{}

func TestCloseNotify(t *testing.T) {
	for name, leave := range map[string]func(*client){"reset": (*client).reset, "close": func(c *client) { c.Close() }} {
		t.Run(name, func(t *testing.T) {
			entered, told := make(chan struct{}), make(chan bool, 1)
			ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
				gone := w.(interface{ CloseNotify() <-chan bool }).CloseNotify()
				close(entered)
				told <- waitFor(t, gone)
			})
			c := ts.dial()
			c.send(get)
			waitFor(t, entered)
			leave(c)
			if !waitFor(t, told) {
				t.Error("told false")
			}
		})
	}
}
