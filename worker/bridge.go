package worker

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// acceptLoop serves listeners that are no plain sockets: tls.NewListener,
// limiting or counting wrappers, listeners in memory.
func (s *Server) acceptLoop(l *listener) error {
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
	fd, b, err := descriptorOf(conn)
	if err == nil {
		peer := addressOf(conn.RemoteAddr())
		err = s.reactor.Do(func() { s.adopt(l, fd, peer, b) })
		if err != nil {
			_ = s.sockets.close(fd)
			if b != nil {
				b.closed()
			}
		}
		return
	}
	conn.Close()
	s.log.error(limitKey{event: "bridge"}, "connection could not be taken over", "peer", conn.RemoteAddr().String(), "err", err)
}

// descriptorOf returns a descriptor that stands for the connection.
func descriptorOf(conn net.Conn) (int, *bridge, error) {
	switch conn.(type) {
	case *net.TCPConn, *net.UnixConn:
		fd, err := duplicate(conn.(syscall.Conn))
		if err == nil {
			conn.Close() // the duplicate keeps the connection
		}
		return fd, nil, err
	}
	fd, theirs, err := socketPair()
	if err != nil {
		return -1, nil, err
	}
	b := &bridge{conn: conn, inner: theirs.(*net.UnixConn)}
	b.copies.Add(2)
	go b.inward()
	go b.outward()
	return fd, b, nil
}

// bridge carries bytes between a connection that has no descriptor of its own
// and a socket that the reactor can watch. Its two goroutines end when either
// side does.
type bridge struct {
	conn   net.Conn
	inner  *net.UnixConn
	copies sync.WaitGroup
}

// inward carries what the client sends; its end of file is passed on.
func (b *bridge) inward() {
	defer b.copies.Done()
	_, err := io.Copy(b.inner, b.conn)
	if err != nil {
		b.inner.Close()
		return
	}
	_ = b.inner.CloseWrite()
}

// outward carries the answers, and ends the connection after the last.
func (b *bridge) outward() {
	defer b.copies.Done()
	_, _ = io.Copy(b.conn, b.inner)
	if half, ok := b.conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		return // inward goes on until the client has closed, or we do
	}
	b.conn.Close()
}

// closed is called when our end of the pair has been closed: what was written
// to it is still carried to the client, then the connection is closed.
func (b *bridge) closed() {
	go func() { // ends with the copies
		_ = b.conn.SetReadDeadline(time.Unix(1, 0))
		b.copies.Wait()
		b.conn.Close()
		b.inner.Close()
	}()
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
