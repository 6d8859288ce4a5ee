package load

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	slots       = 100                 // the clients take turns, so that their bytes come evenly
	turnTime    = time.Second / slots // each client has a turn a second
	openingTime = 10 * time.Second    // a server that does not accept must not stop the run
	readSize    = 1 << 10             // bytes that a reader takes in a turn
)

// trickle are clients that do a little each second. One goroutine drives them
// with non-blocking system calls: thousands of goroutines would take the
// processor from the load. A connection that the server closes is opened
// again, as an attacker would.
type trickle struct {
	kind   Kind
	target unix.SockaddrInet4
	first  []byte // what a client sends at once
	slowly []byte // what it then sends, a byte a turn; letters follow
	quit   chan struct{}
	wg     sync.WaitGroup

	mu     sync.Mutex
	conns  []trickleConn
	closed int // by the server
	err    error
}

type trickleConn struct {
	fd    int // -1 when there is none
	begun bool
	sent  int // of slowly and what follows
}

func newTrickle(c Crowd, target *net.TCPAddr) *trickle {
	t := &trickle{kind: c.Kind, quit: make(chan struct{}), conns: make([]trickleConn, c.N)}
	t.target.Port = target.Port
	copy(t.target.Addr[:], target.IP.To4())
	switch c.Kind {
	case Heads: // a head that never ends
		t.slowly = []byte("GET / HTTP/1.1\r\nHost: slow\r\nX-Trickle: ")
	case Bodies:
		t.first = []byte("POST / HTTP/1.1\r\nHost: slow\r\nContent-Length: 100000\r\n\r\n")
	case Readers:
		t.first = []byte("GET " + c.Path + " HTTP/1.1\r\nHost: slow\r\n\r\n")
	}
	for i := range t.conns {
		t.conns[i].fd = -1
	}
	return t
}

// open starts the trickle, and returns when every client has begun or has had
// its time.
func (t *trickle) open() error {
	all := make(chan struct{})
	t.wg.Go(func() { t.run(all) })
	select {
	case <-all:
	case <-time.After(openingTime):
	}
	return nil
}

func (t *trickle) state() (CrowdState, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return CrowdState{Alive: t.alive(), Closed: t.closed}, t.err
}

func (t *trickle) alive() (n int) {
	for _, c := range t.conns {
		if c.begun {
			n++
		}
	}
	return n
}

func (t *trickle) close() {
	close(t.quit)
	t.wg.Wait()
	for _, c := range t.conns {
		if c.fd >= 0 {
			unix.Close(c.fd)
		}
	}
}

// run gives each client its turn once a second until close, and closes all
// once every client has begun.
func (t *trickle) run(all chan<- struct{}) {
	ticker := time.NewTicker(turnTime)
	defer ticker.Stop()
	buffer := make([]byte, readSize)
	waiting := true
	for slot := 0; ; slot = (slot + 1) % slots {
		select {
		case <-t.quit:
			return
		case <-ticker.C:
		}
		t.mu.Lock()
		for i := slot; i < len(t.conns) && t.err == nil; i += slots {
			t.err = t.turn(&t.conns[i], buffer)
		}
		failed := t.err != nil
		begun := failed || waiting && t.alive() == len(t.conns)
		t.mu.Unlock()
		if waiting && begun {
			waiting = false
			close(all)
		}
		if failed {
			return
		}
	}
}

// turn opens the connection, or sends or reads a little.
func (t *trickle) turn(c *trickleConn, buffer []byte) error {
	if c.fd < 0 {
		if err := t.connect(c); err != nil {
			return err
		}
	}
	var err error
	switch {
	case !c.begun && len(t.first) > 0:
		_, err = unix.Write(c.fd, t.first)
	case t.kind == Readers:
		var n int
		if n, err = unix.Read(c.fd, buffer); n == 0 && err == nil {
			err = unix.ECONNRESET
		}
	default:
		next := byte('a')
		if c.sent < len(t.slowly) {
			next = t.slowly[c.sent]
		}
		if _, err = unix.Write(c.fd, []byte{next}); err == nil {
			c.sent++
		}
	}
	switch {
	case err == nil:
		c.begun = true
	case errors.Is(err, unix.EAGAIN): // not accepted yet, or nothing to read
	default:
		unix.Close(c.fd)
		*c = trickleConn{fd: -1}
		t.closed++
	}
	return nil
}

func (t *trickle) connect(c *trickleConn) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	*c = trickleConn{fd: fd}
	if t.kind == Readers { // else the kernel reads for them
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<10); err != nil {
			return fmt.Errorf("SO_RCVBUF: %w", err)
		}
	}
	if err := unix.Connect(fd, &t.target); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return fmt.Errorf("connect: %w", err)
	}
	return nil
}
