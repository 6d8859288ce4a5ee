package server

import (
	"errors"
	"fmt"
	"net"

	"github.com/panjf2000/gnet/v2"
	"github.com/panjf2000/gnet/v2/pkg/logging"
	"golang.org/x/sys/unix"
)

// The servers of this file are limits and not servers: they look for the ends
// of requests, read nothing else, and answer with bytes made beforehand.

// canned is the whole answer of Hello, as long as Catamount's.
func canned(app string) []byte {
	connection := "Connection: keep-alive\r\nKeep-Alive: timeout=65\r\n"
	if app == Goodbye {
		connection = "Connection: close\r\n"
	}
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nDate: Sat, 01 Jan 2028 00:00:00 GMT\r\n%sContent-Length: %d\r\n\r\n%s",
		plainText, connection, len(helloBody), helloBody)
}

// ends counts the ends of heads in data; state is how much of an end the data
// before it finished with.
func ends(data []byte, state *uint8) (n int) {
	const end = "\r\n\r\n"
	for _, b := range data {
		switch {
		case b == end[*state]:
			*state++
			if int(*state) == len(end) {
				*state = 0
				n++
			}
		case b == '\r':
			*state = 1
		default:
			*state = 0
		}
	}
	return n
}

// silent keeps gnet from announcing itself.
type silent struct{}

var _ logging.Logger = silent{}

func (silent) Debugf(string, ...any) {}
func (silent) Infof(string, ...any)  {}
func (silent) Warnf(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(string, ...any) {}

type gnetServer struct {
	gnet.BuiltinEventEngine
	answer []byte
	close  bool
}

func serveGnet(addr string, spec Spec, _ *content) error {
	s := &gnetServer{answer: canned(spec.App), close: spec.App == Goodbye}
	return gnet.Run(s, "tcp://"+addr, gnet.WithNumEventLoop(1), gnet.WithLogger(silent{}))
}

func (s *gnetServer) OnOpen(c gnet.Conn) ([]byte, gnet.Action) {
	c.SetContext(new(uint8))
	return nil, gnet.None
}

func (s *gnetServer) OnTraffic(c gnet.Conn) gnet.Action {
	data, err := c.Next(-1)
	if err != nil {
		return gnet.Close
	}
	n := ends(data, c.Context().(*uint8))
	if n == 0 {
		return gnet.None
	}
	var out []byte
	if n == 1 {
		out = s.answer
	} else {
		for range n {
			out = append(out, s.answer...)
		}
	}
	if _, err := c.Write(out); err != nil || s.close {
		return gnet.Close
	}
	return gnet.None
}

// serveEpoll is the floor: one goroutine, one epoll set, a receive and a send
// for each request. It takes the descriptor of the listener for itself.
func serveEpoll(l net.Listener, spec Spec, _ *content) error {
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	e := &epollServer{listener: int(file.Fd()), answer: canned(spec.App), close: spec.App == Goodbye}
	defer file.Close()
	if err := unix.SetNonblock(e.listener, true); err != nil {
		return err
	}
	if e.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(e.epoll)
	return e.run()
}

type epollServer struct {
	listener, epoll int
	answer          []byte
	close           bool
	states          []uint8 // by descriptor
	out             []byte
}

func (e *epollServer) run() error {
	if err := e.watch(e.listener, unix.EPOLLIN); err != nil {
		return err
	}
	events := make([]unix.EpollEvent, 256)
	buffer := make([]byte, 64<<10)
	for {
		n, err := unix.EpollWait(e.epoll, events, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		for _, event := range events[:n] {
			if int(event.Fd) == e.listener {
				err = e.accept()
			} else if !e.serve(int(event.Fd), buffer) {
				err = unix.Close(int(event.Fd))
			}
			if err != nil {
				return err
			}
		}
	}
}

func (e *epollServer) watch(fd int, events uint32) error {
	return unix.EpollCtl(e.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

func (e *epollServer) accept() error {
	for {
		fd, _, err := unix.Accept4(e.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.ECONNABORTED), errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("accept4: %w", err)
		}
		for fd >= len(e.states) {
			e.states = append(e.states, 0)
		}
		e.states[fd] = 0
		if err := e.watch(fd, unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLET&0xffffffff); err != nil {
			return err
		}
	}
}

// serve reports whether the connection stays.
func (e *epollServer) serve(fd int, buffer []byte) bool {
	for {
		n, err := unix.Read(fd, buffer)
		if errors.Is(err, unix.EAGAIN) {
			return true
		}
		if n <= 0 {
			return false
		}
		out := e.answer
		if requests := ends(buffer[:n], &e.states[fd]); requests == 0 {
			out = nil
		} else if requests > 1 {
			e.out = e.out[:0]
			for range requests {
				e.out = append(e.out, e.answer...)
			}
			out = e.out
		}
		if len(out) > 0 {
			if sent, err := unix.Write(fd, out); err != nil || sent < len(out) || e.close {
				return false
			}
		}
		if n < len(buffer) {
			return true
		}
	}
}
