package worker

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// acceptLoop serves listeners that are no plain sockets: tls.NewListener,
// limiting or counting wrappers, listeners in memory.
func (s *Server) acceptLoop(l *listener) error {
	s.arriving.Add(1)
	defer s.arrived()
	pause := time.Duration(0)
	for {
		if !s.options.QueueRequests {
			s.waitUntilNotFull()
		}
		conn, err := l.Accept()
		if err != nil {
			if s.draining.Load() {
				return errServerClosed
			}
			var temporary interface{ Temporary() bool }
			if errors.As(err, &temporary) && temporary.Temporary() {
				// net/http waits 5 ms to 1 s, doubling; wrappers rely on it.
				pause = min(max(2*pause, 5*time.Millisecond), time.Second)
				s.stats.acceptPauses.Add(1)
				s.log.error(limitKey{event: "accept"}, "accept failed; retrying", "err", err, "pause", pause)
				select {
				case <-time.After(pause):
				case <-s.drainBegun:
					return errServerClosed
				}
				continue
			}
			return err
		}
		pause = 0
		s.adoptConn(l, conn)
	}
}

// arrived: one less is arriving.
func (s *Server) arrived() {
	if s.arriving.Add(-1) == 0 && s.draining.Load() {
		_ = s.reactor.Do(s.checkDrained)
	}
}

// adoptSoon is adopt for other goroutines than the reactor's. False: it has
// ended.
func (s *Server) adoptSoon(l *listener, fd int, peer address, b *bridge) bool {
	s.arriving.Add(1) // until it is a client: between the two nobody else would wait for it
	return s.reactor.Do(func() {
		s.adopt(l, fd, peer, b)
		s.arriving.Add(-1)
		s.checkDrained()
	}) == nil
}

// waitUntilNotFull is Puma's: it holds up accepting while no place is free.
func (s *Server) waitUntilNotFull() {
	for s.pool.Full() {
		free := make(chan struct{})
		s.whenNotFull(func() { close(free) })
		select {
		case <-free:
		case <-s.drainBegun:
			return
		}
	}
}

// adoptConn gives a connection to the reactor. A socket is taken as it is; any
// other connection is put behind a socket pair, which costs two goroutines
// and a copy, and gives it everything else that a client has.
func (s *Server) adoptConn(l *listener, conn net.Conn) {
	switch conn.(type) {
	case *net.TCPConn, *net.UnixConn:
		peer := addressOf(conn.RemoteAddr())
		fd, err := duplicate(conn.(syscall.Conn))
		conn.Close() // the duplicate keeps the connection
		if err != nil {
			s.log.error(limitKey{event: "adopt"}, "connection could not be taken over", "peer", peer.String(), "err", err)
			return
		}
		if !s.adoptSoon(l, fd, peer, nil) {
			_ = s.sockets.close(fd)
		}
	default:
		s.arriving.Add(1)
		go s.runBridge(l, conn)
	}
}

// bridge carries bytes between a connection that has no descriptor of its own
// and a socket that the reactor can watch. Its goroutines end when either side
// does.
type bridge struct {
	conn   net.Conn
	inner  *net.UnixConn
	remote string // the peer's address
	grace  time.Duration
	end    atomic.Uint32 // bridgeOpen, and so on
}

const (
	bridgeOpen    uint32 = iota
	bridgeCarries        // the client is gone from the reactor, its last bytes are on their way
	bridgeEnded
)

// runBridge is the goroutine of what comes in.
func (s *Server) runBridge(l *listener, conn net.Conn) {
	defer conn.Close()
	b := s.buildBridge(l, conn)
	s.arrived()
	if b == nil {
		return
	}
	outward := make(chan struct{})
	go func() {
		defer close(outward)
		b.outward()
	}()
	_, _ = io.Copy(b.inner, conn)
	_ = b.inner.CloseWrite() // the client's end of file, or its failure, is passed on
	<-outward
	b.inner.Close()
	if b.end.Swap(bridgeEnded) == bridgeCarries {
		conn.Close() // first: who waits for the server may end the process
		s.arrived()
	}
}

// buildBridge returns nil when the connection does not become a client. Asking
// for the peer's address may wait for bytes of the client (listeners for the
// PROXY protocol): so it is done here and not where others are accepted, and not
// for ever.
func (s *Server) buildBridge(l *listener, conn net.Conn) *bridge {
	stop := context.AfterFunc(s.bridging, func() { conn.Close() })
	defer stop()
	if first := s.options.Timeouts.FirstByte; first > 0 {
		_ = conn.SetReadDeadline(time.Now().Add(first))
	}
	remote := conn.RemoteAddr()
	_ = conn.SetReadDeadline(time.Time{})
	if !s.shakeHands(conn) {
		return nil
	}
	fd, theirs, err := socketPair()
	if err != nil {
		s.log.error(limitKey{event: "adopt"}, "connection could not be taken over", "peer", remote.String(), "err", err)
		return nil
	}
	b := &bridge{conn: conn, inner: theirs.(*net.UnixConn), remote: remote.String(), grace: max(s.options.Timeouts.Linger, time.Second)}
	if !s.adoptSoon(l, fd, addressOf(remote), b) {
		_ = s.sockets.close(fd)
		b.inner.Close()
		return nil
	}
	return b
}

// handshaker is a *tls.Conn, or what wraps one.
type handshaker interface {
	HandshakeContext(context.Context) error
}

// shakeHands is the TLS handshake, where there is one, within the time in which
// a connection's first byte has to come. It counts and logs one that fails.
func (s *Server) shakeHands(conn net.Conn) bool {
	secure, ok := conn.(handshaker)
	if !ok {
		return true
	}
	ctx := context.Background()
	if limit := s.options.Timeouts.FirstByte; limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	err := secure.HandshakeContext(ctx)
	if err == nil {
		return true
	}
	reason := err.Error()
	var notTLS tls.RecordHeaderError
	if errors.As(err, &notTLS) && notTLS.Conn != nil && isHTTP(notTLS.RecordHeader[:]) {
		_, _ = io.WriteString(notTLS.Conn, "HTTP/1.0 400 Bad Request\r\nConnection: close\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
		reason = "an HTTP request on a TLS port"
	}
	s.stats.handshakes.Add(1)
	s.log.warn(limitKey{event: "handshake", peer: addressOf(conn.RemoteAddr()).ip}, "TLS handshake failed", "peer", conn.RemoteAddr().String(), "err", reason)
	return false
}

// isHTTP recognises a plain request by its first five bytes.
func isHTTP(first []byte) bool {
	switch string(first) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "PATCH", "DELET":
		return true
	}
	return false
}

// outward carries the answers, and ends the connection after the last.
func (b *bridge) outward() {
	if _, err := io.Copy(b.conn, b.inner); err != nil {
		// The client is gone: whoever writes to it must not wait for it.
		b.inner.Close()
		b.conn.Close()
		return
	}
	if half, ok := b.conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		// What the client still sends is awaited, but not for long; then both
		// copies have ended.
		_ = b.conn.SetReadDeadline(time.Now().Add(b.grace))
		return
	}
	b.conn.Close()
}

// bridgeClosed is called when our end of the pair has been closed. What was
// written to it is still carried to a client that takes it in time, and a server
// that leaves waits for that: with the process it would be lost.
func (s *Server) bridgeClosed(b *bridge) {
	s.arriving.Add(1)
	if !b.end.CompareAndSwap(bridgeOpen, bridgeCarries) {
		s.arriving.Add(-1) // the caller looks whether all is drained
	}
	readErr := b.conn.SetReadDeadline(time.Unix(1, 0))
	if writeErr := b.conn.SetWriteDeadline(time.Now().Add(b.grace)); readErr != nil || writeErr != nil {
		time.AfterFunc(b.grace, func() { b.conn.Close() }) // it has no deadlines, or is closed
	}
}

// turnAway closes what does not become a client.
func (s *Server) turnAway(fd int, b *bridge) {
	_ = s.sockets.close(fd)
	if b != nil {
		s.bridgeClosed(b)
	}
}

// tlsState is what http.Request.TLS has for a bridged TLS connection.
func (b *bridge) tlsState() *tls.ConnectionState {
	conn, ok := b.conn.(interface{ ConnectionState() tls.ConnectionState })
	if !ok {
		return nil
	}
	state := conn.ConnectionState()
	return &state
}

// bridgedConn is what Hijack returns for a bridged connection.
type bridgedConn struct {
	*net.UnixConn
	b *bridge
}

func (c bridgedConn) LocalAddr() net.Addr  { return c.b.conn.LocalAddr() }
func (c bridgedConn) RemoteAddr() net.Addr { return c.b.conn.RemoteAddr() }
