package load

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/catamount-server/catamount/bench/internal/stats"
	"golang.org/x/sys/unix"
)

// perSource bounds the connections from one source address: the kernel has
// some 28,000 ephemeral ports for each, of which those of the last rounds may
// still be in TIME-WAIT.
const perSource = 4000

// engine drives the connections of a steady load.
type engine struct {
	Steady
	request  []byte
	epoll    int
	conns    []engineConn
	resting  queue // connections that have nothing under way
	underWay int

	start  time.Time
	result Result
}

type engineConn struct {
	fd   int           // -1: broken
	due  time.Duration // of the request that is under way, after the start
	got  int           // bytes of its answer
	busy bool          // a request is under way
}

// queue is a FIFO of at most as many connections as there are.
type queue struct {
	ring        []int32
	head, count int
}

func (q *queue) push(i int32) {
	q.ring[(q.head+q.count)%len(q.ring)] = i
	q.count++
}

func (q *queue) pop() int32 {
	i := q.ring[q.head]
	q.head = (q.head + 1) % len(q.ring)
	q.count--
	return i
}

func newEngine(s Steady) (*engine, error) {
	e := &engine{Steady: s, request: s.Request.Bytes(), resting: queue{ring: make([]int32, s.Conns)}}
	target, err := net.ResolveTCPAddr("tcp4", s.Addr)
	if err != nil {
		return nil, err
	}
	if e.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	for i := range s.Conns {
		fd, err := connect(target, i)
		if err == nil {
			err = e.add(fd)
		}
		if err != nil {
			e.close()
			return nil, fmt.Errorf("connection %d of %d: %w", i+1, s.Conns, err)
		}
	}
	return e, nil
}

// connect opens the i-th connection to target, and waits until it is there.
func connect(target *net.TCPAddr, i int) (fd int, err error) {
	if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	// The port is chosen by connect, as without a source address: bind would
	// search for one that no other connection has.
	err = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_NODELAY, 1)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, byte(2 + i/perSource)}})
	}
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: target.Port, Addr: [4]byte(target.IP.To4())})
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (e *engine) add(fd int) error {
	i := int32(len(e.conns))
	e.conns = append(e.conns, engineConn{fd: fd})
	e.resting.push(i)
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff, Fd: i}
	if err := unix.EpollCtl(e.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

func (e *engine) close() {
	for _, c := range e.conns {
		if c.fd >= 0 {
			unix.Close(c.fd)
		}
	}
	unix.Close(e.epoll)
}

// run makes the load for its duration, and then waits for what is under way:
// a request that was due counts, however late its answer.
func (e *engine) run() (Result, error) {
	e.start, e.result = time.Now(), Result{Latencies: stats.NewLatencies()}
	events := make([]unix.EpollEvent, 512)
	buffer := make([]byte, 256<<10)
	due := time.Duration(0) // when the next request is due, at a constant rate
	for {
		now := time.Since(e.start)
		due = e.sendDue(due, now)
		over := now >= e.Duration && (e.Rate == 0 || due >= e.Duration || e.resting.count == 0) && e.underWay == 0
		if over || now >= e.Duration+answerTime {
			e.result.Seconds = e.Duration.Seconds()
			break
		}
		n, err := unix.EpollWait(e.epoll, events, e.patience())
		if err != nil && !errors.Is(err, unix.EINTR) {
			return e.result, fmt.Errorf("epoll_wait: %w", err)
		}
		for _, event := range events[:max(n, 0)] {
			e.receive(event.Fd, buffer)
		}
	}
	e.result.Timeouts += int64(e.underWay)
	e.abandon()
	if e.Rate > 0 && due < e.Duration { // could not even be sent
		e.result.Timeouts += int64((e.Duration - due) / e.interval())
	}
	return e.result, nil
}

func (e *engine) interval() time.Duration { return time.Duration(float64(time.Second) / e.Rate) }

// sendDue sends what is due while there are connections to send it on, and
// returns when the next is due.
func (e *engine) sendDue(due, now time.Duration) time.Duration {
	for e.resting.count > 0 {
		if e.Rate == 0 {
			due = now
		}
		if due >= e.Duration || due > now {
			break
		}
		if e.send(e.resting.pop(), due) && e.Rate > 0 {
			due += e.interval()
		}
	}
	return due
}

func (e *engine) patience() int {
	if e.Spin {
		return 0
	}
	return 1 // ms
}

// send reports whether the request is under way.
func (e *engine) send(i int32, due time.Duration) bool {
	c := &e.conns[i]
	if c.fd < 0 {
		return false
	}
	if n, err := unix.Write(c.fd, e.request); err != nil || n < len(e.request) {
		e.lose(c)
		return false
	}
	c.due, c.got, c.busy = due, 0, true
	e.underWay++
	return true
}

// abandon closes the connections whose answers have not come in time: what
// comes later must not count in another run.
func (e *engine) abandon() {
	for i := range e.conns {
		if c := &e.conns[i]; c.busy {
			unix.Close(c.fd)
			*c = engineConn{fd: -1}
		}
	}
	e.underWay = 0
}

// lose gives a connection up.
func (e *engine) lose(c *engineConn) {
	unix.Close(c.fd)
	c.fd = -1
	e.result.Broken++
	if c.busy {
		c.busy = false
		e.underWay--
	}
}

var success = []byte("HTTP/1.1 200")

// receive reads what has come for connection i.
func (e *engine) receive(i int32, buffer []byte) {
	c := &e.conns[i]
	for c.fd >= 0 {
		n, err := unix.Read(c.fd, buffer)
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		if n <= 0 || !c.busy || c.got+n > e.AnswerSize {
			e.lose(c)
			return
		}
		if c.got == 0 && n >= len(success) && !bytes.HasPrefix(buffer[:n], success) {
			e.result.Bad++
		}
		if c.got += n; c.got == e.AnswerSize {
			e.finish(i)
		}
		if n < len(buffer) {
			return // an edge will tell of more
		}
	}
}

func (e *engine) finish(i int32) {
	c := &e.conns[i]
	now := time.Since(e.start)
	latency := now - c.due
	if now > e.Duration {
		e.result.Late++
	}
	e.result.Latencies.Record(latency, 1)
	e.result.Requests++
	e.underWay--
	c.busy = false
	e.resting.push(i)
}
