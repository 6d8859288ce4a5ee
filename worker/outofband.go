package worker

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
	s.showAccepting(false)
	defer s.showAccepting(true)
	s.outOfBand.Add(1)
	defer s.outOfBand.Add(1)
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
