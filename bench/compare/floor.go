package main

import (
	"bytes"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// cannedAnswer is what Catamount answers, but for the date.
const cannedAnswer = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 13\r\n" +
	"Date: Thu, 26 Nov 2026 12:00:00 GMT\r\nConnection: keep-alive\r\nKeep-Alive: timeout=65\r\n\r\n" + answer

// serveFloor is no server but a limit: one loop of epoll_wait, recv and send that
// answers the same bytes to whatever ends with an empty line. It parses nothing,
// has no time-outs, and expects that a socket takes every answer.
func serveFloor(l net.Listener) error {
	set, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	defer unix.Close(set)
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	defer file.Close()
	listener := int(file.Fd())
	if err := watch(set, listener); err != nil {
		return err
	}
	events := make([]unix.EpollEvent, 256)
	buffer := make([]byte, 64<<10)
	answers := bytes.Repeat([]byte(cannedAnswer), 64)
	for {
		n, err := unix.EpollWait(set, events, -1)
		if err != nil && err != unix.EINTR {
			return os.NewSyscallError("epoll_wait", err)
		}
		for i := range max(n, 0) {
			fd := int(events[i].Fd)
			if fd != listener {
				answerCanned(fd, buffer, answers)
				continue
			}
			conn, _, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			if err != nil {
				return os.NewSyscallError("accept4", err)
			}
			if err := watch(set, conn); err != nil {
				return err
			}
		}
	}
}

func watch(set, fd int) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	if err := unix.EpollCtl(set, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

func answerCanned(fd int, buffer, answers []byte) {
	n, err := unix.Read(fd, buffer)
	if n <= 0 {
		if err != unix.EAGAIN {
			unix.Close(fd)
		}
		return
	}
	requests := bytes.Count(buffer[:n], []byte("\r\n\r\n"))
	if _, err := unix.Write(fd, answers[:requests*len(cannedAnswer)]); err != nil {
		unix.Close(fd)
	}
}
