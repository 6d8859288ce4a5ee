package worker

import "github.com/catamount-server/catamount/reactor"

// lingerBytes is how much is read and discarded from a client whose answer is
// final: enough for most to finish what they were sending, and to read the
// answer then. From a client who sends more nothing is read any more: it has the
// rest of Timeouts.Linger to read its answer.
const lingerBytes = 64 << 20

// startLingering shuts down our side and goes on reading, so that the peer
// reads the answer, or the end of an idle connection, and not a reset: closing
// a socket with unread bytes makes the kernel send RST, which throws away what
// the peer has not read yet (RFC 9112 section 9.6).
func (s *Server) startLingering(sl *slot) {
	c := &sl.Value
	now := s.reactor.BatchTime()
	s.discard(c)
	if s.options.Timeouts.Linger <= 0 || s.sockets.shutdownWrite(sl.FD()) != nil {
		s.close(sl)
		return
	}
	s.setState(c, StateLingering, now)
	s.reactor.SetDeadline(sl, now+int64(s.options.Timeouts.Linger))
	s.drainInput(sl)
}

// drainInput reads and discards, and closes at the peer's end of file.
func (s *Server) drainInput(sl *slot) {
	c := &sl.Value
	sl.ClearReadable()
	for c.lingered <= lingerBytes {
		n, err := s.sockets.receive(sl.FD(), s.readBuffer)
		if err == errWouldBlock {
			return
		}
		c.lingered += uint32(n)
		if err != nil || n == 0 {
			s.close(sl)
			return
		}
		s.stats.bytesIn.Add(uint64(n))
		if n < len(s.readBuffer) && sl.Seen()&(reactor.PeerClosed|reactor.HungUp) == 0 {
			return
		}
	}
}
