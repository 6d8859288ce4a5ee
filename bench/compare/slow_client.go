package main

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// slowHead is what a slow client sends, a byte a second; it then goes on with
// letters, so that its head never ends.
const slowHead = "GET / HTTP/1.1\r\nHost: slow\r\nX-Trickle: "

const (
	slots       = 100                 // the clients take turns, so that their bytes come evenly
	turn        = time.Second / slots // each client sends one byte a second
	openingTime = 10 * time.Second    // a server that does not accept must not stop the run
)

// slowClients hold connections that send a byte a second. One goroutine
// drives them with non-blocking system calls: thousands of goroutines would
// take the processor from wrk. A connection that the server closes is opened
// again, as an attacker would.
type slowClients struct {
	target unix.SockaddrInet4
	quit   chan struct{}
	wg     sync.WaitGroup

	mu     sync.Mutex
	conns  []slowConn
	closed int // by the server
	err    error
}

type slowConn struct {
	fd   int // -1 when there is none
	sent int // bytes
}

func newSlowClients(target *net.TCPAddr, n int) *slowClients {
	c := &slowClients{quit: make(chan struct{}), conns: make([]slowConn, n)}
	c.target.Port = target.Port
	copy(c.target.Addr[:], target.IP.To4())
	for i := range c.conns {
		c.conns[i].fd = -1
	}
	return c
}

// open starts the trickle, and returns when every client has sent a byte or
// has had its time.
func (c *slowClients) open() (int, error) {
	all := make(chan struct{})
	c.wg.Go(func() { c.trickle(all) })
	select {
	case <-all:
	case <-time.After(openingTime):
	}
	alive, _, err := c.check()
	return alive, err
}

func (c *slowClients) check() (alive, closed int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		if conn.sent > 0 {
			alive++
		}
	}
	return alive, c.closed, c.err
}

func (c *slowClients) stop() {
	close(c.quit)
	c.wg.Wait()
	for _, conn := range c.conns {
		if conn.fd >= 0 {
			unix.Close(conn.fd)
		}
	}
}

// trickle gives each client its turn once a second until stop, and closes all
// once every client has sent a byte.
func (c *slowClients) trickle(all chan<- struct{}) {
	ticker := time.NewTicker(turn)
	defer ticker.Stop()
	waiting := true
	for slot := 0; ; slot = (slot + 1) % slots {
		select {
		case <-c.quit:
			return
		case <-ticker.C:
		}
		c.mu.Lock()
		for i := slot; i < len(c.conns) && c.err == nil; i += slots {
			c.err = c.turn(&c.conns[i])
		}
		failed := c.err != nil
		c.mu.Unlock()
		if waiting {
			if alive, _, _ := c.check(); failed || alive == len(c.conns) {
				waiting = false
				close(all)
			}
		}
		if failed {
			return
		}
	}
}

// turn opens conn or sends its next byte.
func (c *slowClients) turn(conn *slowConn) error {
	if conn.fd < 0 {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("socket: %w", err)
		}
		conn.fd, conn.sent = fd, 0
		if err := unix.Connect(fd, &c.target); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			return fmt.Errorf("connect: %w", err)
		}
	}
	next := byte('a')
	if conn.sent < len(slowHead) {
		next = slowHead[conn.sent]
	}
	switch _, err := unix.Write(conn.fd, []byte{next}); {
	case err == nil:
		conn.sent++
	case errors.Is(err, unix.EAGAIN): // not accepted yet
	default:
		unix.Close(conn.fd)
		*conn = slowConn{fd: -1}
		c.closed++
	}
	return nil
}
