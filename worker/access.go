package worker

import (
	"runtime/debug"
	"strings"
	"time"

	"github.com/catamount-server/catamount/threadpool"
)

// AccessRecord is a request that the application has served, for a log.
type AccessRecord struct {
	Method string
	Path   string // as the client wrote it, without the query, which may hold secrets
	Proto  string
	Peer   string // address and port
	// Status of the answer; 0 when the connection was cut, or taken over by the
	// handler without an answer.
	Status int
	// Bytes of the body that the handler has written.
	Bytes int64
	// Queue is how long the request waited for a place after it was whole,
	// Duration the time from then until the handler had returned.
	Queue, Duration time.Duration
}

// noteAccess tells of a request whose handler has returned. sc.now is still the
// time at which it was called.
func (s *Server) noteAccess(sc *scratch, x *exchange) {
	w := &x.response
	path, _, _ := strings.Cut(x.request.RequestURI, "?")
	r := AccessRecord{Method: x.request.Method, Path: path, Proto: x.request.Proto, Peer: x.request.RemoteAddr,
		Queue: time.Duration(sc.now - x.queuedAt), Duration: time.Duration(s.reactor.Now() - x.queuedAt)}
	w.mu.Lock()
	r.Status, r.Bytes = w.status, w.written
	switch {
	case w.timedOut():
		r.Status, r.Bytes = 503, 0
	case w.cut:
		r.Status = 0
	}
	w.mu.Unlock()
	defer func() {
		if v := recover(); v != nil {
			s.stats.panics.Add(1)
			s.log.error(limitKey{event: "OnRequest"}, "OnRequest panicked", "panic", panicValue(v), "path", path, "stack", string(debug.Stack()))
		}
	}()
	s.options.OnRequest(&r)
}

// detach takes a handler out of the pool's count: what it serves is noted no
// longer, because its place's number is another's.
func (s *Server) detach(place *threadpool.Place) {
	if s.options.Slot != nil && !place.Detached() {
		s.options.Slot.End(place.Index)
	}
	s.pool.Detach(place)
}
