package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// perSource bounds the connections from one source address: the kernel has
// some 28,000 ephemeral ports for each, of which those of the last rounds may
// still be in TIME-WAIT.
const perSource = 4000

// idleClients hold connections that have each been served one request.
type idleClients struct {
	target *net.TCPAddr
	n      int
	leave  bool // close each connection after its request
	conns  []net.Conn
}

func (c *idleClients) open() (int, error) {
	reader := bufio.NewReader(nil)
	for i := range c.n {
		dialer := net.Dialer{
			LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i/perSource))},
			Control:   portAtConnect,
		}
		conn, err := dialer.Dial("tcp4", c.target.String())
		if err != nil {
			return i, fmt.Errorf("connection %d of %d: %w", i+1, c.n, err)
		}
		c.conns = append(c.conns, conn)
		if err := exchange(conn, reader); err != nil {
			return i, fmt.Errorf("connection %d of %d: %w", i+1, c.n, err)
		}
		if c.leave {
			conn.Close()
		}
	}
	return len(c.conns), nil
}

// portAtConnect lets connect choose the port, as it does without a source
// address: bind would search for one that no other connection has.
func portAtConnect(_, _ string, conn syscall.RawConn) error {
	var failed error
	err := conn.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
	return errors.Join(err, failed)
}

// check sends one more request over each connection: the only proof that the
// server did not save memory by closing them.
func (c *idleClients) check() (alive, closed int, err error) {
	reader := bufio.NewReader(nil)
	for _, conn := range c.conns {
		if err := exchange(conn, reader); err != nil {
			closed++
		} else {
			alive++
		}
	}
	return alive, closed, nil
}

// exchange does one request over conn.
func exchange(conn net.Conn, reader *bufio.Reader) error {
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: idle\r\n\r\n"); err != nil {
		return err
	}
	reader.Reset(conn)
	resp, err := http.ReadResponse(reader, nil)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || string(body) != answer {
		return fmt.Errorf("answer %s, %q", resp.Status, body)
	}
	return nil
}
