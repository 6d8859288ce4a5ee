package worker

import "github.com/catamount-server/catamount/internal/page"

// runOutOfBand calls the application's hook for work that no request should wait
// for, such as a collection of garbage (Puma's out_of_band). The pool calls it
// after a request, when no other one runs or waits, and starts none meanwhile.
// New connections are left to the siblings.
func (s *Server) runOutOfBand() {
	if s.draining.Load() {
		return
	}
	closed := make(chan struct{})
	if s.reactor.Do(func() {
		s.closeGate()
		close(closed)
	}) != nil {
		return
	}
	<-closed
	defer func() { _ = s.reactor.Do(s.openGate) }()
	if slot := s.options.Slot; slot != nil && slot.State.CompareAndSwap(uint32(page.Live), uint32(page.Booting)) {
		defer slot.State.CompareAndSwap(uint32(page.Booting), uint32(page.Live))
	}
	s.options.OutOfBand()
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
