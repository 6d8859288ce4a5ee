package worker

import "sync/atomic"

// outOfBand is the application's hook for work that no request should wait for,
// such as a collection of garbage (Puma's out_of_band). It runs after a request,
// when no other one runs or waits; meanwhile connections are left to the
// siblings.
type outOfBand struct {
	hook    func()
	running atomic.Bool
}

// requestDone is called by a place that has finished a request. The place itself
// still counts as busy.
func (s *Server) requestDone() {
	o := s.outOfBand
	if o == nil || s.draining.Load() || !s.pool.Last() || !o.running.CompareAndSwap(false, true) {
		return
	}
	defer o.running.Store(false)
	_ = s.reactor.Do(s.closeGate)
	defer func() { _ = s.reactor.Do(s.openGate) }()
	o.hook()
}

// closeGate stops accepting, until openGate.
func (s *Server) closeGate() {
	s.gate.shut = true
	for _, l := range *s.gate.table.Load() {
		if l.raw != nil {
			s.disarm(l)
		}
	}
}
