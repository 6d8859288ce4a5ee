package worker

import (
	"context"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// closedChannel is what Done returns once the context is over.
var closedChannel = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

type placeKey struct{}

// PlaceKey is the context key under which a request's pool place (an int) is
// found.
var PlaceKey any = placeKey{}

// requestContext is the context of one request. It lives inside the exchange,
// makes its channel only when somebody asks, and implements AfterFunc, without
// which every context.WithCancel or WithTimeout of a handler would start a
// goroutine to watch it (context.propagateCancel).
//
// Most requests' contexts end without anybody having asked for more than Err:
// that takes one compare-and-swap. Who wants to be told says so first
// (watched) and looks afterwards whether it is over; who ends it does the same
// in the opposite order; so one of them, or both, see the other.
type requestContext struct {
	exchange *exchange

	ended   atomic.Uint32 // one of contextRuns and so on
	watched atomic.Bool   // somebody may have to be told

	mu    sync.Mutex
	done  chan struct{}
	watch *watchers
}

// What has become of a context.
const (
	contextRuns     uint32 = iota
	contextCanceled        // context.Canceled
	contextLate            // context.DeadlineExceeded
	contextEnded           // the base context's error, of an unusual kind
)

// watchers is what most requests do not have.
type watchers struct {
	after []*afterFunc
	// baseStop ends the watch of the base context, where it can be cancelled.
	baseStop func() bool
}

// watchersLocked returns the watchers, made when needed.
func (c *requestContext) watchersLocked() *watchers {
	if c.watch == nil {
		c.watch = new(watchers)
	}
	return c.watch
}

type afterFunc struct{ f func() }

// base is what the context derives from.
func (c *requestContext) base() context.Context { return c.exchange.listener.base }

var _ context.Context = (*requestContext)(nil)

func (c *requestContext) Deadline() (time.Time, bool) {
	deadline, ok := c.base().Deadline()
	if limit := c.exchange.limit(); limit != nil && (!ok || limit.at.Before(deadline)) {
		return limit.at, true
	}
	return deadline, ok
}

func (c *requestContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.watched.Store(true)
		if c.ended.Load() != contextRuns {
			c.done = closedChannel
		} else {
			c.done = make(chan struct{})
		}
	}
	return c.done
}

func (c *requestContext) Err() error {
	switch c.ended.Load() {
	case contextRuns:
		return nil
	case contextCanceled:
		return context.Canceled
	case contextLate:
		return context.DeadlineExceeded
	}
	return c.base().Err()
}

func (c *requestContext) Value(key any) any {
	switch key {
	case http.ServerContextKey:
		return c.exchange.server.shadow
	case http.LocalAddrContextKey:
		return c.localAddr()
	case PlaceKey:
		return int(c.exchange.place)
	}
	return c.base().Value(key)
}

// localAddr asks the kernel while the request runs, and answers with the
// listener's address afterwards: the descriptor may be another client's by
// then.
func (c *requestContext) localAddr() net.Addr {
	x := c.exchange
	x.response.mu.Lock()
	defer x.response.mu.Unlock()
	if !x.response.finished && !x.response.hijacked && !x.response.timedOut() {
		if b := x.client().bridged; b != nil {
			return b.conn.LocalAddr()
		}
		if addr := localAddress(x.slot.FD()); addr != nil {
			return addr
		}
	}
	return x.listener.addr
}

// AfterFunc runs f in its own goroutine when the context is over.
func (c *requestContext) AfterFunc(f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watched.Store(true)
	if c.ended.Load() != contextRuns {
		go f()
		return func() bool { return false }
	}
	entry := &afterFunc{f}
	w := c.watchersLocked()
	w.after = append(w.after, entry)
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		i := slices.Index(w.after, entry)
		if c.watch != w || i < 0 {
			return false // it has run
		}
		w.after = slices.Delete(w.after, i, i+1)
		return true
	}
}

// cancel ends the context with context.Canceled, context.DeadlineExceeded or the
// error of the base context; only the first call counts. It may be called by the
// reactor while the handler runs.
func (c *requestContext) cancel(err error) {
	if c.end(err) && c.watched.Load() {
		c.tell()
	}
}

// end notes that the context is over, and why; false when it was before.
func (c *requestContext) end(err error) bool {
	switch err {
	case context.Canceled:
		return c.ended.CompareAndSwap(contextRuns, contextCanceled)
	case context.DeadlineExceeded:
		return c.ended.CompareAndSwap(contextRuns, contextLate)
	}
	return c.ended.CompareAndSwap(contextRuns, contextEnded)
}

// tell wakes those who wait for the end.
func (c *requestContext) tell() {
	c.mu.Lock()
	if c.done != nil && c.done != closedChannel {
		close(c.done)
	}
	watch := c.watch
	c.watch = nil
	c.mu.Unlock()
	if watch == nil {
		return
	}
	if watch.baseStop != nil {
		watch.baseStop()
	}
	for _, entry := range watch.after {
		go entry.f()
	}
}

// follow makes the context end with its base, where that can end at all.
func (c *requestContext) follow() {
	if c.base().Done() == nil {
		return
	}
	stop := context.AfterFunc(c.base(), func() { c.cancel(c.base().Err()) })
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watched.Store(true)
	if c.ended.Load() == contextRuns {
		c.watchersLocked().baseStop = stop
	}
}
