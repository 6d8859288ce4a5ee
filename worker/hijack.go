package worker

import (
	"bufio"
	"bytes"
	"io"
	"net"
)

// hijack takes the connection out of the server's hands. The caller holds the
// response's lock.
func (s *Server) hijack(w *response, behind []byte) (net.Conn, *bufio.ReadWriter, error) {
	x, sc := w.x, w.scratch
	s.reclaim(sc)
	s.settleLoan(sc)
	if err := s.sendAll(w); err != nil { // a 101, or answers to earlier requests
		return nil, nil, err
	}
	conn, err := connOf(x.slot.FD())
	if err != nil { // out of descriptors, as a rule: the connection goes on here
		return nil, nil, err
	}
	if err := s.reactor.Detach(x.slot); err != nil {
		conn.Close()
		return nil, nil, err
	}
	c := x.client()
	if c.bridged != nil {
		conn = bridgedConn{conn.(*net.UnixConn), c.bridged}
		c.bridged = nil
	}
	// What has been received behind the request belongs to the new owner.
	early := append(behind, c.unread()...)
	var source io.Reader = conn
	if len(early) > 0 {
		source = io.MultiReader(bytes.NewReader(early), conn)
	}
	reader := bufio.NewReaderSize(source, max(len(early), 4096))
	if len(early) > 0 {
		_, _ = reader.Peek(len(early)) // so that Buffered tells of them
	}
	w.hijacked = true
	sc.last = nil // sent before: else what befalls the place's next client is reported as that answer's
	s.stats.hijacked.Add(1)
	c.exchange.Store(nil)
	// The goroutine serves no HTTP any more: it gives its place in the pool to
	// another.
	s.detach(w.place)
	s.post(x.slot, StateHijacked, s.reactor.Now())
	return conn, bufio.NewReadWriter(reader, bufio.NewWriter(conn)), nil
}
