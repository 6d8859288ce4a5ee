package worker

import (
	"errors"
	"net"
	"os"
	"runtime"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sockets is the kernel's side of a connection, as function fields so that
// tests can put another in its place. All descriptors are non-blocking.
type sockets struct {
	// accept returns errWouldBlock when nobody waits.
	accept func(listener int) (fd int, peer address, err error)
	// receive reads what is there; n is 0 at the end of the stream.
	receive func(fd int, p []byte) (n int, err error)
	// send writes what the socket takes, of a and then of b.
	send func(fd int, a, b []byte) (n int, err error)
	// sendFile writes what the socket takes of n bytes of a file; it returns 0
	// at the end of the file.
	sendFile func(fd, file int, offset, n int64) (int, error)
	// unread is how much has come that nobody has read.
	unread func(fd int) int64
	// unsent is how much has been sent that the peer has not acknowledged.
	unsent func(fd int) int64
	// setNotSent bounds what the socket takes before it can send it; see notSent.
	setNotSent    func(fd, bytes int)
	shutdownWrite func(fd int) error
	// shutdown ends both directions; whoever waits for the socket notices.
	shutdown func(fd int) error
	// resetOnClose makes close end the connection by a reset, which throws away
	// what has not been sent or read. Means nothing to what is not TCP.
	resetOnClose func(fd int)
	close        func(fd int) error
}

var errWouldBlock error = unix.EAGAIN

func kernelSockets() *sockets {
	return &sockets{
		accept:   acceptSocket,
		receive:  receive,
		send:     send,
		sendFile: sendFile,
		unread:   unreadBytes,
		unsent:   unsentBytes,
		setNotSent: func(fd, bytes int) { // fails on what is not TCP, where it means nothing
			_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, bytes)
		},
		shutdownWrite: func(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) },
		shutdown:      func(fd int) error { return unix.Shutdown(fd, unix.SHUT_RDWR) },
		resetOnClose: func(fd int) {
			_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		},
		close: unix.Close,
	}
}

// acceptSocket is accept4 without the allocation of a Sockaddr.
func acceptSocket(listener int) (int, address, error) {
	var raw unix.RawSockaddrAny
	size := uint32(unix.SizeofSockaddrAny)
	for {
		fd, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listener), uintptr(unsafe.Pointer(&raw)),
			uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		switch errno {
		case 0:
			return int(fd), addressOfRaw(&raw), nil
		case unix.EINTR:
			continue
		default:
			return -1, address{}, errno
		}
	}
}

// rawLimit is the size up to which a transfer may be a raw system call. One
// that copies more holds its processor too long to be hidden from the
// scheduler.
const rawLimit = 64 << 10

// receive is recvfrom: a little cheaper than read (no file position, no
// security hooks of the file layer).
func receive(fd int, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, unix.EINVAL
	}
	for {
		var n uintptr
		var errno unix.Errno
		if len(p) <= rawLimit {
			n, _, errno = unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), 0, 0, 0)
		} else {
			n, _, errno = unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), 0, 0, 0)
		}
		switch errno {
		case 0:
			raceAcquire(fd)
			return int(n), nil
		case unix.EINTR:
			continue
		default:
			return 0, errno
		}
	}
}

func send(fd int, a, b []byte) (int, error) {
	if len(a) == 0 {
		a, b = b, nil
	}
	if len(a) == 0 {
		return 0, nil
	}
	raceRelease()
	if len(b) > 0 {
		return sendVector(fd, a, b)
	}
	for {
		var n uintptr
		var errno unix.Errno
		base, size := uintptr(unsafe.Pointer(&a[0])), uintptr(len(a))
		if len(a) <= rawLimit {
			n, _, errno = unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), base, size, unix.MSG_NOSIGNAL, 0, 0)
		} else {
			n, _, errno = unix.Syscall6(unix.SYS_SENDTO, uintptr(fd), base, size, unix.MSG_NOSIGNAL, 0, 0)
		}
		runtime.KeepAlive(a)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
			continue
		default:
			return 0, errno
		}
	}
}

// sendVector writes two pieces at once. Below some 8 KiB a copy into one piece
// is as fast; the caller decides.
func sendVector(fd int, a, b []byte) (int, error) {
	vector := [2]unix.Iovec{{Base: &a[0]}, {Base: &b[0]}}
	vector[0].SetLen(len(a))
	vector[1].SetLen(len(b))
	message := unix.Msghdr{Iov: &vector[0]}
	message.SetIovlen(2)
	for {
		n, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&message)), unix.MSG_NOSIGNAL)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
			continue
		default:
			return 0, errno
		}
	}
}

// unreadBytes is how much a socket has received that nobody has read.
func unreadBytes(fd int) int64 {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return 0
	}
	return int64(n)
}

// sendFile is sendfile(2). Files that it does not take are read and sent.
func sendFile(fd, file int, offset, n int64) (int, error) {
	for {
		at := offset
		sent, err := unix.Sendfile(fd, file, &at, int(n))
		switch err {
		case nil:
			return sent, nil
		case unix.EINTR:
			continue
		case unix.EINVAL, unix.ENOSYS, unix.EOPNOTSUPP:
			return copyFile(fd, file, offset, n)
		}
		return 0, err
	}
}

func copyFile(fd, file int, offset, n int64) (int, error) {
	buffer := outPool.Get()
	defer putBuffer(&outPool, buffer)
	if cap(buffer.B) < streamBuffer {
		buffer.B = make([]byte, streamBuffer)
	}
	read, err := unix.Pread(file, buffer.B[:min(int64(cap(buffer.B)), n)], offset)
	if read <= 0 {
		return 0, err
	}
	return send(fd, buffer.B[:read], nil)
}

// unsentBytes is how much of what was sent the peer has not acknowledged
// (SIOCOUTQ, tcp(7)).
func unsentBytes(fd int) int64 {
	n, err := unix.IoctlGetInt(fd, unix.TIOCOUTQ)
	if err != nil {
		return 0
	}
	return int64(n)
}

// duplicateFile returns a descriptor of our own for a handler's file.
func duplicateFile(raw syscall.RawConn) (*os.File, error) {
	var number int
	var err error
	if controlErr := raw.Control(func(fd uintptr) {
		number, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	}); controlErr != nil {
		return nil, controlErr
	}
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(number), "sent file"), nil
}

// isDescriptorShortage: the process or the system has no descriptor or memory
// for another connection. Accepting has to pause; the connections wait in the
// kernel's queue.
func isDescriptorShortage(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM)
}

func isErrno(err error, of ...unix.Errno) bool {
	var errno unix.Errno
	return errors.As(err, &errno) && slices.Contains(of, errno)
}

// isGoneBeforeAccept: the connection that accept was about to return has an
// error of its own (accept(2) lists them); the next one may be fine.
func isGoneBeforeAccept(err error) bool {
	switch err {
	case unix.ECONNABORTED, unix.EPROTO, unix.ENETDOWN, unix.ENOPROTOOPT, unix.EHOSTDOWN, unix.ENONET, unix.EHOSTUNREACH, unix.EOPNOTSUPP, unix.ENETUNREACH, unix.EPERM, unix.ETIMEDOUT:
		return true
	}
	return false
}

// failureOf names the cause of a failed read or write.
func failureOf(err error) Failure {
	switch {
	case errors.Is(err, unix.EPIPE):
		return FailureBrokenPipe
	case errors.Is(err, unix.ECONNRESET):
		return FailureReset
	case errors.Is(err, unix.ETIMEDOUT):
		return FailureTimedOut
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTDOWN):
		return FailureUnreachable
	case errors.Is(err, errTooSlow):
		return FailureTooSlow
	case errors.Is(err, os.ErrDeadlineExceeded):
		return FailureDeadline
	}
	return FailureOther
}

// setNonblock asserts what the whole reactor relies on: the flag lives in the
// open file, which other processes may share, and passing a listener through
// os/exec clears it for all of them.
func setNonblock(fd int) error {
	return os.NewSyscallError("fcntl", unix.SetNonblock(fd, true))
}

// socketPair makes two connected sockets; the first is non-blocking.
func socketPair() (ours int, theirs net.Conn, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, nil, os.NewSyscallError("socketpair", err)
	}
	file := os.NewFile(uintptr(pair[1]), "catamount-bridge")
	theirs, err = net.FileConn(file)
	file.Close()
	if err != nil {
		unix.Close(pair[0])
		return -1, nil, err
	}
	return pair[0], theirs, nil
}

// bodyFile makes an unnamed file for a large body: nothing is left behind,
// however the process ends.
func bodyFile(directory string) (*os.File, error) {
	fd, err := unix.Open(directory, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC|unix.O_EXCL, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), directory+"/(unnamed body)"), nil
	}
	if err != unix.EOPNOTSUPP && err != unix.EISDIR && err != unix.EINVAL {
		return nil, &os.PathError{Op: "open", Path: directory, Err: err}
	}
	// File systems without O_TMPFILE: make it and unlink it.
	file, err := os.CreateTemp(directory, "catamount-body-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(file.Name()); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// duplicate returns a descriptor of its own for a connection.
func duplicate(conn syscall.Conn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var dupErr error
	if err := raw.Control(func(original uintptr) {
		fd, dupErr = unix.FcntlInt(original, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return -1, err
	}
	return fd, os.NewSyscallError("fcntl", dupErr)
}

// connOf makes a net.Conn of its own for a descriptor, which stays open.
func connOf(fd int) (net.Conn, error) {
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	file := os.NewFile(uintptr(copied), "catamount-hijacked")
	defer file.Close() // FileConn duplicates once more
	return net.FileConn(file)
}
