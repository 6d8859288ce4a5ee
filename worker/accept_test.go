package worker

import (
	"bufio"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// shortageChild is a server whose process may open few descriptors. It tells
// its address and log on its standard output until its standard input ends.
func shortageChild() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	options := testOptions()
	options.Handler = http.HandlerFunc(hello)
	options.Logger = slog.New(slog.NewTextHandler(os.Stdout, nil))
	s, err := NewServer(options)
	if err != nil {
		return err
	}
	if err := leaveDescriptors(3); err != nil {
		return err
	}
	served := make(chan error)
	go func() { served <- s.Serve(l) }()
	fmt.Println("addr", l.Addr())
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		s.Close()
	}()
	if err := <-served; err != http.ErrServerClosed {
		return err
	}
	return nil
}

// leaveDescriptors takes all descriptors but n. Counting those that are open and
// setting the limit by that would not do: the limit is on their numbers, and
// those inherited may have any.
func leaveDescriptors(n int) error {
	_ = time.Now().String() // reads the time zone, which takes a descriptor for a moment
	limit := syscall.Rlimit{Cur: 100, Max: 100}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	var taken []int
	for {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == unix.EMFILE {
			break
		}
		if err != nil {
			return err
		}
		taken = append(taken, fd)
	}
	for _, fd := range taken[:n] {
		if err := unix.Close(fd); err != nil {
			return err
		}
	}
	return nil
}

// When descriptors run out accepting pauses; those who wait are served once
// there are some again.
func TestDescriptorShortage(t *testing.T) {
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childVariable+"=shortage")
	child.Stderr = os.Stderr
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(patience, func() { _ = child.Process.Kill() })
	defer watchdog.Stop()
	lines := bufio.NewScanner(stdout)
	next := func(part string) string {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), part) {
				return lines.Text()
			}
		}
		t.Fatalf("the child ended without a line %q: %v", part, child.Wait())
		return ""
	}

	addr := strings.TrimPrefix(next("addr"), "addr ")
	var clients []*client
	for range 3 {
		c := dialTCP(t, addr)
		c.send(get)
		c.want(200, "Hello, World!")
		clients = append(clients, c)
	}
	waiting := dialTCP(t, addr) // the kernel takes it, the server cannot
	waiting.send(get)
	if line := next("accepting paused"); !strings.Contains(line, "level=ERROR") || !strings.Contains(line, "connections=3") || !strings.Contains(line, "too many open files") {
		t.Errorf("line %q", line)
	}
	for _, c := range clients { // those who are in notice nothing
		c.send(get)
		c.want(200, "Hello, World!")
	}
	clients[0].Close()
	next("accepting resumed")
	waiting.want(200, "Hello, World!")
	stdin.Close()
	if err := child.Wait(); err != nil {
		t.Error(err)
	}
}

// The same without a kernel: what is logged and counted, how often it is
// tried, and that other listeners pause as well.
func TestShortagePauses(t *testing.T) {
	for _, errno := range []error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM} {
		t.Run(errno.Error(), func(t *testing.T) {
			fails := make(chan error, 3)
			for range cap(fails) {
				fails <- errno
			}
			ts := startServer(t, hello, func(o *Options) {
				o.sockets = kernelSockets()
				o.sockets.accept = func(fd int) (int, address, error) {
					select {
					case err := <-fails:
						return -1, address{}, err
					default:
						return acceptSocket(fd)
					}
				}
			})
			c := ts.dial()
			c.send(get)
			c.want(200, "Hello, World!")
			if n := ts.Stats().Paused; n != 3 {
				t.Errorf("%d pauses, want 3", n)
			}
			ts.logs.next(t, "accepting paused: out of descriptors or memory")
		})
	}
}

// A connection that failed while it waited is no reason to stop.
func TestGoneBeforeAccept(t *testing.T) {
	fails := make(chan error, 10)
	for _, err := range []error{unix.ECONNABORTED, unix.EPROTO, unix.ENETDOWN, unix.EHOSTUNREACH, unix.ETIMEDOUT} {
		fails <- err
	}
	ts := startServer(t, hello, func(o *Options) {
		o.sockets = kernelSockets()
		o.sockets.accept = func(fd int) (int, address, error) {
			select {
			case err := <-fails:
				return -1, address{}, err
			default:
				return acceptSocket(fd)
			}
		}
	})
	c := ts.dial()
	c.send(get)
	c.want(200, "Hello, World!")
	if len(fails) > 0 || ts.Stats().Paused != 0 {
		t.Errorf("%d errors left, %d pauses", len(fails), ts.Stats().Paused)
	}
}

// An error that no waiting mends ends Serve.
func TestAcceptFails(t *testing.T) {
	ts := startServer(t, hello, func(o *Options) {
		o.sockets = kernelSockets()
		o.sockets.accept = func(int) (int, address, error) { return -1, address{}, unix.EBADF }
	})
	if conn, err := net.Dial("tcp", ts.addr); err == nil { // it may be told that nobody listens any more
		defer conn.Close()
	}
	if err := waitFor(t, ts.served); err != unix.EBADF {
		t.Errorf("Serve = %v, want %v", err, unix.EBADF)
	}
}

// The last one who has a listening socket closes it right after it has accepted
// who waited. Between the two the kernel accepts connections which the close then
// resets, so nothing else is done there.
func TestListenerClosedOnceItIsEmpty(t *testing.T) {
	var ts *testServer
	listens := make(chan bool, 8)
	ts = startServer(t, hello, func(o *Options) {
		o.sockets = kernelSockets()
		o.sockets.accept = func(fd int) (int, address, error) {
			if ts.gate.takesAll {
				// What the reactor does next.
				_ = ts.reactor.Do(func() {
					on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
					listens <- err == nil && on == 1
				})
			}
			return acceptSocket(fd)
		}
	})
	if err := ts.reactor.Do(func() { ts.gate.takesAll = true }); err != nil {
		t.Fatal(err)
	}
	ts.wantShutdown(ts.shutdown())
	if waitFor(t, listens) {
		t.Error("the reactor goes on to something else before it closes the socket")
	}
}

// A connection that cannot be watched is closed, and nobody else is harmed.
func TestConnectionCannotBeRegistered(t *testing.T) {
	var opened []int
	closed := make(chan int, 1)
	ts := startServer(t, hello, func(o *Options) {
		o.sockets = kernelSockets()
		o.sockets.accept = func(fd int) (int, address, error) {
			if len(opened) > 0 {
				return acceptSocket(fd)
			}
			// A file is no socket: epoll refuses it.
			file, err := unix.Open("/proc/self/stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			opened = append(opened, file)
			return file, address{}, err
		}
		o.sockets.close = func(fd int) error {
			if fd == opened[0] && len(closed) == 0 {
				closed <- fd
			}
			return unix.Close(fd)
		}
	})
	c := ts.dial()
	waitFor(t, closed)
	ts.logs.next(t, "connection could not be registered")
	c.send(get)
	c.want(200, "Hello, World!")
}

// Small answers are not held back for acknowledgements, and dead peers are
// found, on each connection: also on those that came before Serve.
func TestSocketOptions(t *testing.T) {
	for name, early := range map[string]bool{"before Serve": true, "after Serve": false} {
		t.Run(name, func(t *testing.T) {
			ts := newTestServer(t, func(w http.ResponseWriter, r *http.Request) {
				fd := exchangeOf(r).slot.FD()
				for _, option := range []struct {
					name                string
					level, number, want int
				}{
					{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
					{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
					{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60},
					{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 30_000},
				} {
					if value, err := unix.GetsockoptInt(fd, option.level, option.number); value != option.want || err != nil {
						t.Errorf("%s = %d, %v; want %d", option.name, value, err, option.want)
					}
				}
				if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); flags&unix.O_NONBLOCK == 0 || err != nil {
					t.Errorf("flags %x, %v: blocking", flags, err)
				}
				if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 || err != nil {
					t.Errorf("flags %x, %v: programs started by the handler inherit it", flags, err)
				}
			}, func(o *Options) {
				o.Liveness = Liveness{ProbeAfter: time.Minute, Unacknowledged: 30 * time.Second}
			})
			l := listenTCP(t)
			ts.addr = l.Addr().String()
			var c *client
			if early {
				c = ts.dial()
			}
			go func() { ts.served <- ts.Serve(l) }()
			if !early {
				ts.waitArmed(1)
				c = ts.dial()
			}
			c.send(get)
			c.want(200, "")
		})
	}
}
