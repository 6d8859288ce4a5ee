package worker

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"
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
	close    func(fd int) error
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
		close:         unix.Close,
	}
}

// address is a peer's address without a pointer: it is kept for every
// connection, its text made only when somebody asks.
type address struct {
	ip     [16]byte
	port   uint16
	family uint8 // 0: a unix socket, or unknown; 4, also of a client on a dual-stack socket; 6
}

func (a *address) addrPort() netip.AddrPort {
	switch a.family {
	case 4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(a.ip[:4])), a.port)
	case 6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.ip), a.port)
	}
	return netip.AddrPort{}
}

// appendTo appends the text that http.Request.RemoteAddr has.
func (a *address) appendTo(b []byte) []byte {
	switch a.family {
	case 0:
		return append(b, '@')
	case 4: // each request has it made: netip takes 80 ns for what takes 15
		for i, octet := range a.ip[:4] {
			if i > 0 {
				b = append(b, '.')
			}
			b = appendDecimal(b, uint(octet))
		}
		return appendDecimal(append(b, ':'), uint(a.port))
	}
	return a.addrPort().AppendTo(b)
}

// appendDecimal appends n, which is below 100,000.
func appendDecimal(b []byte, n uint) []byte {
	switch {
	case n < 10:
		return append(b, byte('0'+n))
	case n < 100:
		return append(b, byte('0'+n/10), byte('0'+n%10))
	case n < 1000:
		return append(b, byte('0'+n/100), byte('0'+n/10%10), byte('0'+n%10))
	case n < 10000:
		return append(b, byte('0'+n/1000), byte('0'+n/100%10), byte('0'+n/10%10), byte('0'+n%10))
	}
	return append(b, byte('0'+n/10000), byte('0'+n/1000%10), byte('0'+n/100%10), byte('0'+n/10%10), byte('0'+n%10))
}

func (a *address) String() string { return string(a.appendTo(nil)) }

// hasZone: a link-local address means something only together with its
// interface. That is asked for when the text is made, not kept.
func (a *address) hasZone() bool {
	return a.family == 6 && a.ip[0] == 0xfe && a.ip[1]&0xc0 == 0x80
}

// peerWithZone asks the kernel for the peer's address with its interface.
func peerWithZone(fd int, a *address) netip.AddrPort {
	if name, err := unix.Getpeername(fd); err == nil {
		if in6, ok := name.(*unix.SockaddrInet6); ok {
			return withZone(a.addrPort(), in6.ZoneId)
		}
	}
	return a.addrPort()
}

func withZone(address netip.AddrPort, zone uint32) netip.AddrPort {
	if zone == 0 || !address.Addr().Is6() {
		return address
	}
	name := strconv.Itoa(int(zone))
	if itf, err := net.InterfaceByIndex(int(zone)); err == nil {
		name = itf.Name
	}
	return netip.AddrPortFrom(address.Addr().WithZone(name), address.Port())
}

func addressOf(addr net.Addr) address {
	var a address
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return a
	}
	a.port = uint16(tcp.Port)
	if ip4 := tcp.IP.To4(); ip4 != nil {
		a.family = 4
		copy(a.ip[:], ip4)
	} else if len(tcp.IP) == 16 {
		a.family = 6
		copy(a.ip[:], tcp.IP)
	}
	return a
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

func addressOfRaw(raw *unix.RawSockaddrAny) address {
	var a address
	switch raw.Addr.Family {
	case unix.AF_INET:
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(raw))
		a.family = 4
		a.port = in.Port<<8 | in.Port>>8
		copy(a.ip[:], in.Addr[:])
	case unix.AF_INET6:
		in := (*unix.RawSockaddrInet6)(unsafe.Pointer(raw))
		a.family = 6
		a.port = in.Port<<8 | in.Port>>8
		a.ip = in.Addr
		a.unmap()
	}
	return a
}

// unmap makes the address of an IPv4 client on a dual-stack socket what
// net/http shows.
func (a *address) unmap() {
	if ip := netip.AddrFrom16(a.ip); ip.Is4In6() {
		a.family = 4
		v4 := ip.Unmap().As4()
		a.ip = [16]byte{}
		copy(a.ip[:], v4[:])
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

// Liveness is what ends connections to peers that vanished without a word. TCP
// finds them, in the kernel, at no cost for the server; a setting of 0 leaves
// the system's own.
type Liveness struct {
	// ProbeAfter a silence of that long (TCP_KEEPIDLE), every ProbeInterval
	// (TCP_KEEPINTVL), until ProbeCount went unanswered (TCP_KEEPCNT). A negative
	// ProbeAfter sends no probes. Whole seconds.
	ProbeAfter, ProbeInterval time.Duration
	ProbeCount                int
	// Unacknowledged bytes end the connection after that long (TCP_USER_TIMEOUT,
	// RFC 5482), and so do unanswered probes then. Milliseconds.
	Unacknowledged time.Duration
}

// notSent is how much of an answer the kernel takes in before it can send it
// (TCP_NOTSENT_LOWAT). Without a bound it takes up to 4 MiB from a client's
// answer (net.ipv4.tcp_wmem), in memory that cannot be swapped: a thousand slow
// readers of 8 MiB exhaust tcp_mem, and then the kernel breaks connections at
// random. Bytes that are on their way do not count, so nobody gets slower.
const notSent = 256 << 10

// tune sets what accepted sockets inherit from their listener, so once instead
// of per connection: no delay for small answers, and what finds vanished peers.
// Multipath listeners, which net.Listen makes where the kernel can, hand little
// of it on, so there each socket is tuned: most are plain TCP, because their
// clients are. TCP_USER_TIMEOUT is refused on those that are multipath
// themselves; so only errors of plain TCP sockets are reported.
func tune(fd int, liveness *Liveness) error {
	if family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || family != unix.AF_INET && family != unix.AF_INET6 {
		return nil
	}
	protocol, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	var errs []error
	set := func(level, option, value int) {
		if err := unix.SetsockoptInt(fd, level, option, value); err != nil && protocol == unix.IPPROTO_TCP {
			errs = append(errs, os.NewSyscallError("setsockopt", err))
		}
	}
	set(unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	set(unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSent)
	if liveness.ProbeAfter >= 0 {
		set(unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
		for option, value := range map[int]int{
			unix.TCP_KEEPIDLE: wholeSeconds(liveness.ProbeAfter), unix.TCP_KEEPINTVL: wholeSeconds(liveness.ProbeInterval), unix.TCP_KEEPCNT: liveness.ProbeCount,
		} {
			if value > 0 {
				set(unix.IPPROTO_TCP, option, value)
			}
		}
	} else {
		set(unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0) // Go's listeners have it on
	}
	if liveness.Unacknowledged > 0 {
		set(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(max(liveness.Unacknowledged/time.Millisecond, 1)))
	}
	return errors.Join(errs...)
}

// isMultipath reports whether a socket speaks Multipath TCP.
func isMultipath(fd int) bool {
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	return err == nil && protocol == unix.IPPROTO_MPTCP
}

// wholeSeconds rounds up, so that little does not become nothing.
func wholeSeconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// setNonblock asserts what the whole reactor relies on: the flag lives in the
// open file, which other processes may share, and passing a listener through
// os/exec clears it for all of them.
func setNonblock(fd int) error {
	return os.NewSyscallError("fcntl", unix.SetNonblock(fd, true))
}

// localAddress asks the kernel for a connection's own address.
func localAddress(fd int) net.Addr {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return nil
	}
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		return &net.TCPAddr{IP: append([]byte(nil), name.Addr[:]...), Port: name.Port}
	case *unix.SockaddrInet6:
		a := address{ip: name.Addr, port: uint16(name.Port), family: 6}
		a.unmap()
		return net.TCPAddrFromAddrPort(withZone(a.addrPort(), name.ZoneId))
	case *unix.SockaddrUnix:
		return &net.UnixAddr{Name: name.Name, Net: "unix"}
	}
	return nil
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
