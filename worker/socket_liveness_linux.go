package worker

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

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
