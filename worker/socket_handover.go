package worker

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// sendDescriptor sends one record with one descriptor, or none of both.
func sendDescriptor(socket, fd int, record []byte) error {
	rights := unix.UnixRights(fd)
	for {
		err := unix.Sendmsg(socket, record, rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return os.NewSyscallError("sendmsg", err)
		}
	}
}

// isQueueFull: what could not be sent may be later. ETOOMANYREFS: more
// descriptors are on their way than the user may have open.
func isQueueFull(err error) bool {
	return isErrno(err, unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM, unix.ETOOMANYREFS)
}

// receiveDescriptor takes one record. The descriptors are the caller's, whatever
// the record says.
func receiveDescriptor(socket int, buffer []byte) (n int, descriptors []int, err error) {
	var rights [128]byte
	for {
		n, size, flags, _, err := unix.Recvmsg(socket, buffer, rights[:], unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, nil, err
		}
		descriptors = parseRights(rights[:size])
		if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
			n = 0 // parseHandOver refuses it
		}
		return n, descriptors, nil
	}
}

func parseRights(raw []byte) (descriptors []int) {
	messages, err := unix.ParseSocketControlMessage(raw)
	if err != nil {
		return nil
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			_ = setNonblock(fd) // as they come; a worker's are
			descriptors = append(descriptors, fd)
		}
	}
	return descriptors
}

// newHandOverQueue makes a listener of the end of the pair at which connections
// arrive.
func newHandOverQueue(fd int) (*sharedListener, error) {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d: want a SOCK_SEQPACKET socket: %w", fd, err)
	}
	if kind != unix.SOCK_SEQPACKET {
		return nil, fmt.Errorf("descriptor %d: want a SOCK_SEQPACKET socket, found one of type %d", fd, kind)
	}
	return &sharedListener{fd: fd, addr: handOverAddr{}}, nil
}

// handOverAddr is the queue's name in the log.
type handOverAddr struct{}

func (handOverAddr) Network() string { return "unix" }
func (handOverAddr) String() string  { return "connections from siblings" }
