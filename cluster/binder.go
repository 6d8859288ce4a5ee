package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Binder holds listening sockets: as raw, non-blocking, close-on-exec
// descriptors, because an os.File or an exec.Cmd would switch the socket that
// all processes share to blocking. The master binds once and holds its sockets
// until it stops, so that no connection that the kernel has queued is lost with
// a worker.
type Binder struct {
	listeners []*boundListener
}

// boundListener is one listening socket.
type boundListener struct {
	bind Bind
	fd   int
	addr net.Addr
	// file is the path that this server, or the one whose place it took, has
	// made; it is removed by the one that stops, if it still is the same.
	file *socketFile
	// retired: its bind is not configured any more; it goes when the last worker
	// that was started with it has been replaced.
	retired bool
}

// socketFile identifies the file of a unix socket.
type socketFile struct {
	Path  string `json:"path"`
	Dev   uint64 `json:"dev"`
	Inode uint64 `json:"inode"`
}

// Listen opens the sockets of all binds, or none. The caller closes the Binder.
// The errors name the bind.
func Listen(ctx context.Context, binds []Bind) (*Binder, error) {
	b := &Binder{}
	for _, bind := range binds {
		l, err := bind.listen(ctx)
		if err != nil {
			_ = b.Close()
			return nil, fmt.Errorf("cannot listen on %s: %w", bind, err)
		}
		b.listeners = append(b.listeners, l)
	}
	return b, nil
}

func (b Bind) listen(ctx context.Context) (*boundListener, error) {
	if b.Network != "tcp" && b.Network != "unix" {
		return nil, fmt.Errorf("unknown network %q, want tcp or unix", b.Network)
	}
	if b.Network == "unix" {
		if err := removeStale(b.Address); err != nil {
			return nil, err
		}
	}
	var lc net.ListenConfig
	// TCP_USER_TIMEOUT and the like do not work on Go's default, Multipath TCP.
	lc.SetMultipathTCP(false)
	listener, err := lc.Listen(ctx, b.Network, b.Address)
	if err != nil {
		if reason, ok := errors.AsType[*os.SyscallError](err); ok {
			err = reason // the address is in the caller's message already
		}
		return nil, err
	}
	// The socket's own descriptor goes, a copy stays: package net would put it
	// into its poller, and unlink and close it as it sees fit.
	if l, ok := listener.(*net.UnixListener); ok {
		l.SetUnlinkOnClose(false)
	}
	defer listener.Close()
	fd, err := duplicate(listener.(syscall.Conn))
	if err != nil {
		return nil, err
	}
	l := &boundListener{bind: b, fd: fd, addr: listener.Addr()}
	backlog := b.Backlog
	if backlog == 0 {
		backlog = DefaultBacklog
	}
	if err := unix.Listen(fd, backlog); err != nil { // package net has asked for the most there is
		l.close()
		return nil, fmt.Errorf("listen: %w", err)
	}
	if b.Network == "unix" {
		l.file = statSocket(b.Address)
	}
	return l, nil
}

func duplicate(conn syscall.Conn) (fd int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	var dupErr error
	err = raw.Control(func(s uintptr) { fd, dupErr = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 3) })
	return fd, errors.Join(err, dupErr)
}

// adoptListener takes over the descriptor of a listening socket.
func adoptListener(bind Bind, fd int, file *socketFile) (*boundListener, error) {
	if n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || n != 1 {
		return nil, fmt.Errorf("descriptor %d is no listening socket for %s: %w", fd, bind, errors.Join(err, os.ErrInvalid))
	}
	address, err := unix.Getsockname(fd)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d of %s: %w", fd, bind, err)
	}
	unix.CloseOnExec(fd)
	l := &boundListener{bind: bind, fd: fd, file: file}
	switch a := address.(type) {
	case *unix.SockaddrInet4:
		l.addr = &net.TCPAddr{IP: slices.Clone(a.Addr[:]), Port: a.Port}
	case *unix.SockaddrInet6:
		l.addr = &net.TCPAddr{IP: slices.Clone(a.Addr[:]), Port: a.Port}
	case *unix.SockaddrUnix:
		l.addr = &net.UnixAddr{Name: a.Name, Net: "unix"}
	}
	return l, nil
}

// Addrs are the addresses that the sockets have got, in the order of the binds.
func (b *Binder) Addrs() []net.Addr {
	addrs := make([]net.Addr, len(b.listeners))
	for i, l := range b.listeners {
		addrs[i] = l.addr
	}
	return addrs
}

// Listeners are the sockets as package net has them, for a server in this
// process. They are the caller's to close; the Binder keeps its own descriptors.
func (b *Binder) Listeners() ([]net.Listener, error) {
	var listeners []net.Listener
	for _, l := range b.listeners {
		listener, err := l.listener()
		if err != nil {
			for _, l := range listeners {
				l.Close()
			}
			return nil, fmt.Errorf("%s: %w", l.bind, err)
		}
		listeners = append(listeners, listener)
	}
	return listeners, nil
}

func (l *boundListener) listener() (net.Listener, error) {
	fd, err := unix.FcntlInt(uintptr(l.fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), l.bind.String())
	defer file.Close() // FileListener makes a copy of its own
	return net.FileListener(file)
}

// assertNonBlocking sees to it that nobody has made the sockets blocking: the
// flag belongs to the socket, in all processes at once, and a blocking accept
// stops a worker's reactor. It returns the binds that were.
func (b *Binder) assertNonBlocking() (blocking []Bind) {
	for _, l := range b.listeners {
		flags, err := unix.FcntlInt(uintptr(l.fd), unix.F_GETFL, 0)
		if err == nil && flags&unix.O_NONBLOCK == 0 {
			blocking = append(blocking, l.bind)
			_ = unix.SetNonblock(l.fd, true)
		}
	}
	return blocking
}

// Close closes the sockets, and removes the files of unix sockets that are
// still the ones that were made for them.
func (b *Binder) Close() error {
	var errs []error
	for _, l := range b.listeners {
		if l.file != nil {
			if now := statSocket(l.file.Path); now != nil && *now == *l.file {
				errs = append(errs, os.Remove(l.file.Path))
			}
		}
		errs = append(errs, l.close())
	}
	b.listeners = nil
	return errors.Join(errs...)
}

func (l *boundListener) close() error { return unix.Close(l.fd) }

// statSocket is nil when there is no socket of this name in the file system.
func statSocket(path string) *socketFile {
	var stat unix.Stat_t
	if err := unix.Lstat(path, &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return nil
	}
	return &socketFile{Path: path, Dev: stat.Dev, Inode: stat.Ino}
}

// removeStale removes a socket that a server left behind when it was killed.
// As in Puma, one that still answers is somebody's.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the abstract namespace ends here as well
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("there is a file with this name, and it is not a socket")
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
		return errors.New("there is already a server bound to it")
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}
