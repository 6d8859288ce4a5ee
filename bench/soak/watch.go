package main

import (
	"context"
	"sync"
	"time"
)

const (
	// watchEvery is how often a watch looks at the clock.
	watchEvery = 20 * time.Millisecond
	// stallLimit is from when on a pause of this process may be the reason for a
	// request that came too late: the server's shortest deadline is 2 s.
	stallLimit = 700 * time.Millisecond
)

// A watch notices when its process does not get a processor: then a client is
// late without knowing, and a server is right to refuse it.
type watch struct {
	mu      sync.Mutex
	last    time.Time // when it looked last
	stalls  []stall
	longest time.Duration
}

type stall struct{ from, to time.Time }

func newWatch() *watch { return &watch{last: time.Now()} }

// run looks until ctx ends. Each time it calls also, which may be nil.
func (w *watch) run(ctx context.Context, also func()) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		w.look(time.Now())
		if also != nil {
			also()
		}
	}
}

func (w *watch) look(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	gap := now.Sub(w.last)
	if w.longest = max(w.longest, gap); gap >= stallLimit {
		w.stalls = append(w.stalls, stall{w.last, now})
	}
	w.last = now
}

// since reports whether there was a stall since then, or is one now.
func (w *watch) since(then time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.last) >= stallLimit {
		return true
	}
	n := len(w.stalls)
	return n > 0 && w.stalls[n-1].to.After(then)
}

// sum returns how many stalls there were, and the longest pause.
func (w *watch) sum() (stalls int, longest time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.stalls), w.longest
}
