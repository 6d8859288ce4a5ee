package reactor

import (
	"fmt"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batchSize is the number of events fetched by one epoll_wait. More would not
// save a measurable part of a system call per event, and would let the first
// client of a batch wait longer for the pool.
const batchSize = 256

// connectionEvents is registered once per connection and never modified:
// epoll_ctl costs about 160 ns, two of them per request with EPOLLONESHOT.
const connectionEvents = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET

// wakeGeneration marks the eventfd's events. No slot ever has it.
const wakeGeneration = 0

type epoll struct {
	fd     int
	wakeFD int
	raw    [batchSize]unix.EpollEvent

	// A Wake may come late, when the reactor has ended: by then the number of
	// the eventfd can be a client's socket, which would get eight bytes.
	waking sync.Mutex
	closed bool
}

// NewEpoll returns a Poller on a new epoll set.
func NewEpoll() (Poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("reactor: epoll_create1: %w", err)
	}
	wakeFD, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("reactor: eventfd: %w", err)
	}
	p := &epoll{fd: fd, wakeFD: wakeFD}
	// Edge-triggered, so that the eventfd is never read: every write is an edge.
	if err := p.control(unix.EPOLL_CTL_ADD, wakeFD, wakeGeneration, unix.EPOLLIN|unix.EPOLLET); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (p *epoll) control(operation, fd int, generation uint32, events uint32) error {
	// epoll_event.data carries descriptor and generation, never a pointer: the
	// kernel's copy would be invisible to the garbage collector.
	event := unix.EpollEvent{Events: events, Fd: int32(fd), Pad: int32(generation)}
	if err := unix.EpollCtl(p.fd, operation, fd, &event); err != nil {
		return fmt.Errorf("reactor: epoll_ctl of descriptor %d: %w", fd, err)
	}
	return nil
}

func (p *epoll) Add(fd int, generation uint32) error {
	return p.control(unix.EPOLL_CTL_ADD, fd, generation, connectionEvents)
}

func (p *epoll) AddListener(fd int, generation uint32) error {
	return p.control(unix.EPOLL_CTL_ADD, fd, generation, unix.EPOLLIN)
}

func (p *epoll) Remove(fd int) error {
	return p.control(unix.EPOLL_CTL_DEL, fd, 0, 0)
}

func (p *epoll) Wait(events []Event, timeout time.Duration) (int, error) {
	limit := min(len(events), batchSize)
	n, errno := p.wait(limit, timeout)
	if errno != 0 {
		if errno == unix.EINTR {
			return 0, nil
		}
		return 0, fmt.Errorf("reactor: epoll_pwait: %w", errno)
	}
	count := 0
	for i := range n {
		raw := &p.raw[i]
		if raw.Pad == wakeGeneration {
			continue
		}
		events[count] = Event{FD: raw.Fd, Generation: uint32(raw.Pad), Events: fromEpoll(raw.Events)}
		count++
	}
	return count, nil
}

// wait is a raw system call when it cannot block, which saves the scheduler's
// bookkeeping (about 30 ns). A raw call that blocks would pin its processor and
// hold up every stop-the-world for ever.
func (p *epoll) wait(limit int, timeout time.Duration) (int, unix.Errno) {
	base := uintptr(unsafe.Pointer(&p.raw[0]))
	if timeout == 0 {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), base, uintptr(limit), 0, 0, 0)
		return int(n), errno
	}
	milliseconds := -1
	if timeout > 0 {
		// Rounded up: waking before the deadline would only mean waiting again.
		milliseconds = int(min((timeout+time.Millisecond-1)/time.Millisecond, 1<<30))
	}
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), base, uintptr(limit), uintptr(milliseconds), 0, 0)
	return int(n), errno
}

func fromEpoll(raw uint32) Events {
	var events Events
	if raw&unix.EPOLLIN != 0 {
		events |= Readable
	}
	if raw&unix.EPOLLOUT != 0 {
		events |= Writable
	}
	if raw&unix.EPOLLRDHUP != 0 {
		events |= PeerClosed
	}
	if raw&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		events |= HungUp
	}
	return events
}

func (p *epoll) Wake() error {
	p.waking.Lock()
	defer p.waking.Unlock()
	if p.closed {
		return nil
	}
	one := uint64(1)
	_, err := unix.Write(p.wakeFD, (*[8]byte)(unsafe.Pointer(&one))[:])
	if err != nil {
		return fmt.Errorf("reactor: waking up: %w", err)
	}
	return nil
}

func (p *epoll) Close() error {
	p.waking.Lock()
	defer p.waking.Unlock()
	p.closed = true
	unix.Close(p.wakeFD)
	if err := unix.Close(p.fd); err != nil {
		return fmt.Errorf("reactor: closing epoll: %w", err)
	}
	return nil
}
