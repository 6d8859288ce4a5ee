package worker

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// inheritedFile is a descriptor that a process has been left by its master.
type inheritedFile struct {
	fd   int
	name string // as in the Inheritance
	// nonblock: whoever uses it relies on the flag, which lives in the open file
	// and may have been lost through another process.
	nonblock bool
}

// files lists what there is.
func (i *Inheritance) files() []inheritedFile {
	files := []inheritedFile{
		{i.Pipe, "pipe", true}, {i.Check, "check", true}, {i.Page, "page", false}, {i.Preload, "preload", false},
		{i.HandOver[0], "hand_over[0]", true}, {i.HandOver[1], "hand_over[1]", true},
	}
	for n, l := range i.Listeners {
		files = append(files, inheritedFile{l.FD, fmt.Sprintf("listeners[%d] (%s)", n, l.Bind), true})
	}
	present := files[:0]
	for _, f := range files {
		if f.fd >= 0 {
			present = append(present, f)
		}
	}
	return present
}

// takeOver makes the files this process's own: programs that it starts do not
// get them, and none blocks.
func (i *Inheritance) takeOver() error {
	var errs []error
	for _, f := range i.files() {
		if f.fd <= 2 {
			errs = append(errs, fmt.Errorf("inherited descriptor %s: %d is standard input, output or error", f.name, f.fd))
			continue
		}
		if _, err := unix.FcntlInt(uintptr(f.fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			errs = append(errs, fmt.Errorf("inherited descriptor %s: %d: %w", f.name, f.fd, err))
			continue
		}
		if !f.nonblock {
			continue
		}
		if err := setNonblock(f.fd); err != nil {
			errs = append(errs, fmt.Errorf("inherited descriptor %s: %d: %w", f.name, f.fd, err))
		}
	}
	return errors.Join(errs...)
}

// sharedListener is a listening socket that several processes have: no
// net.Listener of package net, which would watch it by an epoll set of its own
// and be woken for every connection. Closing it closes this process's
// descriptor; the socket lives on with the others'.
type sharedListener struct {
	fd   int
	addr net.Addr

	mu     sync.Mutex
	users  int // of the descriptor, just now
	closed bool
}

// newSharedListener takes the descriptor over when it succeeds.
func newSharedListener(fd int) (*sharedListener, error) {
	listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d: want a listening socket: %w", fd, err)
	}
	if listens == 0 {
		return nil, fmt.Errorf("descriptor %d: want a listening socket, found one that does not listen", fd)
	}
	addr := localAddress(fd)
	if addr == nil {
		return nil, fmt.Errorf("descriptor %d: want a listening socket of TCP or unix, found another family", fd)
	}
	return &sharedListener{fd: fd, addr: addr}, nil
}

// Accept implements net.Listener. The reactor accepts by the descriptor.
func (l *sharedListener) Accept() (net.Conn, error) { return nil, net.ErrClosed }

// Addr implements net.Listener.
func (l *sharedListener) Addr() net.Addr { return l.addr }

// Close implements net.Listener. The path of a unix socket stays.
func (l *sharedListener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	l.closed = true
	return l.closeUnused()
}

// closeUnused closes the descriptor when it is time to. The lock is held.
func (l *sharedListener) closeUnused() error {
	if !l.closed || l.users > 0 {
		return nil
	}
	return unix.Close(l.fd)
}

// SyscallConn implements syscall.Conn.
func (l *sharedListener) SyscallConn() (syscall.RawConn, error) { return sharedRaw{l}, nil }

// sharedRaw has the one method of syscall.RawConn that is needed.
type sharedRaw struct{ *sharedListener }

// Control keeps the descriptor open while f runs, which may call it again.
func (r sharedRaw) Control(f func(fd uintptr)) error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return net.ErrClosed
	}
	r.users++
	r.mu.Unlock()
	f(uintptr(r.fd))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.users--
	return r.closeUnused()
}

func (sharedRaw) Read(func(uintptr) bool) error  { return errors.ErrUnsupported }
func (sharedRaw) Write(func(uintptr) bool) error { return errors.ErrUnsupported }

// isReadable reports whether a connection waits at a listener.
func isReadable(fd int) bool {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(poll, 0)
	return n > 0 && err == nil
}
