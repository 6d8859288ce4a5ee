package reactor_test

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/catamount-server/catamount/reactor"
	"golang.org/x/sys/unix"
)

// descriptors lists what this process has open, to find what is left over.
func descriptors(t testing.TB) []string {
	t.Helper()
	names, err := filepath.Glob("/proc/self/fd/*")
	if err != nil || len(names) == 0 {
		t.Fatalf("reading /proc/self/fd: %d, %v", len(names), err)
	}
	var open []string
	for _, name := range names {
		if target, err := os.Readlink(name); err == nil {
			open = append(open, filepath.Base(name)+" "+target)
		}
	}
	return open
}

// noLeak fails the test when more descriptors are open at its end. Cleanups
// registered later run before the check.
func noLeak(t testing.TB) {
	before := descriptors(t)
	t.Cleanup(func() {
		for _, fd := range descriptors(t) {
			if !slices.Contains(before, fd) {
				t.Errorf("left open: %s", fd)
			}
		}
	})
}

// closer closes a descriptor once, at the end of the test if not before.
type closer struct {
	fd   int
	once sync.Once
}

func (c *closer) close() { c.once.Do(func() { unix.Close(c.fd) }) }

// pair returns a connected pair of non-blocking sockets: ours and the peer's.
func pair(t testing.TB) (ours, peer *closer) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, peer = &closer{fd: fds[0]}, &closer{fd: fds[1]}
	t.Cleanup(ours.close)
	t.Cleanup(peer.close)
	return ours, peer
}

func newEpoll(t testing.TB) reactor.Poller {
	t.Helper()
	noLeak(t)
	p, err := reactor.NewEpoll()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// look returns what a poller has to report now, as text by descriptor.
func look(t testing.TB, p reactor.Poller) map[int]string {
	t.Helper()
	events := make([]reactor.Event, reactor.BatchSize)
	n, err := p.Wait(events, 0)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]string{}
	for _, event := range events[:n] {
		if seen[int(event.FD)] != "" {
			t.Errorf("descriptor %d twice in one batch", event.FD)
		}
		seen[int(event.FD)] = name(event.Events)
	}
	return seen
}

func write(t testing.TB, fd int, text string) {
	t.Helper()
	if n, err := unix.Write(fd, []byte(text)); n != len(text) || err != nil {
		t.Fatalf("write = %d, %v", n, err)
	}
}

func TestEpollEdges(t *testing.T) {
	p := newEpoll(t)
	ours, peer := pair(t)
	if err := p.Add(ours.fd, 42); err != nil {
		t.Fatal(err)
	}
	expect := func(when, want string) {
		t.Helper()
		if got := look(t, p)[ours.fd]; got != want {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
	}
	expect("registered", "W")
	expect("nothing new", "")
	write(t, peer.fd, "a")
	expect("a byte", "RW")
	expect("nothing new, the byte unread", "")
	write(t, peer.fd, "b")
	expect("another byte", "RW")

	buffer := make([]byte, 1<<20)
	unix.Read(ours.fd, buffer)
	expect("all was read", "")
	for {
		if _, err := unix.Write(ours.fd, buffer); err == unix.EAGAIN {
			break
		}
	}
	expect("our side is full", "")
	for {
		if _, err := unix.Read(peer.fd, buffer); err == unix.EAGAIN {
			break
		}
	}
	expect("room again", "W")

	unix.Shutdown(peer.fd, unix.SHUT_WR)
	expect("the peer has shut down its sending side", "RWP")
	expect("nothing new", "")
	peer.close()
	expect("the peer has closed", "RWPH")
}

func TestEpollReset(t *testing.T) {
	p := newEpoll(t)
	ours, peer := pair(t)
	write(t, ours.fd, "never read")
	p.Add(ours.fd, 1)
	look(t, p)
	peer.close()
	if got := look(t, p)[ours.fd]; got != "RWPH" {
		t.Errorf("after a reset: %q", got)
	}
}

func TestEpollGenerations(t *testing.T) {
	p := newEpoll(t)
	const high = 0xfffffffe // must survive the kernel's signed field
	ours, _ := pair(t)
	if err := p.Add(ours.fd, high); err != nil {
		t.Fatal(err)
	}
	events := make([]reactor.Event, 4)
	want := reactor.Event{FD: int32(ours.fd), Generation: high, Events: reactor.Writable}
	if n, err := p.Wait(events, 0); n != 1 || err != nil || events[0] != want {
		t.Errorf("Wait = %v, %v; want %v", events[:n], err, want)
	}
	if err := p.Add(ours.fd, 1); err == nil {
		t.Error("registered twice")
	}
	if err := p.Remove(ours.fd); err != nil {
		t.Error(err)
	}
	if err := p.Remove(ours.fd); err == nil {
		t.Error("removed twice")
	}
	if err := p.Add(1<<20, 1); err == nil {
		t.Error("registered a descriptor that is not open")
	}
}

// listen returns a listening TCP socket on the loopback interface and a way to
// connect to it.
func listen(t testing.TB) (fd int, dial func() net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	fd = int(file.Fd())
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return fd, func() net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
}

func TestEpollListenerIsLevelTriggered(t *testing.T) {
	p := newEpoll(t)
	fd, dial := listen(t)
	if err := p.AddListener(fd, 7); err != nil {
		t.Fatal(err)
	}
	if got := look(t, p); len(got) != 0 {
		t.Errorf("nobody has connected: %v", got)
	}
	dial()
	for range 3 {
		if got := look(t, p)[fd]; got != "R" {
			t.Errorf("a connection waits: %q, want R each time", got)
		}
	}
	conn, _, err := unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(conn)
	if got := look(t, p); len(got) != 0 {
		t.Errorf("after accept: %v", got)
	}
}

func TestEpollWake(t *testing.T) {
	p := newEpoll(t)
	events := make([]reactor.Event, 4)
	for range 3 { // before a Wait
		p.Wake()
	}
	if n, err := p.Wait(events, -1); n != 0 || err != nil {
		t.Fatalf("Wait = %d, %v", n, err)
	}
	const pause = 30 * time.Millisecond
	start := time.Now()
	if n, err := p.Wait(events, pause); n != 0 || err != nil {
		t.Fatalf("Wait = %d, %v", n, err)
	}
	if elapsed := time.Since(start); elapsed < pause {
		t.Errorf("three wake-ups ended more than one Wait: the second lasted %v", elapsed)
	}
	// Under way, and in all the ways in which the two can overtake each other.
	woken := make(chan struct{})
	go func() {
		defer close(woken)
		for range 2000 {
			p.Wait(events, -1)
			woken <- struct{}{}
		}
	}()
	for range 2000 {
		p.Wake()
		within(t, "a wake-up", woken)
	}
	within(t, "the last Wait", woken)
}

// A deadline that is nearer than the kernel's millisecond is no reason to look
// over and over again.
func TestEpollWaitRoundsUp(t *testing.T) {
	p := newEpoll(t)
	events := make([]reactor.Event, 4)
	for _, timeout := range []time.Duration{1, 500 * time.Microsecond, 1500 * time.Microsecond} {
		start := time.Now()
		if n, err := p.Wait(events, timeout); n != 0 || err != nil {
			t.Fatalf("Wait = %d, %v", n, err)
		}
		if elapsed := time.Since(start); elapsed < timeout.Truncate(time.Millisecond)+500*time.Microsecond {
			t.Errorf("a timeout of %v lasted %v", timeout, elapsed)
		}
	}
}

// within waits for something that must come, far longer than it takes.
func within[T any](t testing.TB, what string, came <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-came:
	case <-time.After(30 * time.Second):
		buffer := make([]byte, 1<<16)
		t.Fatalf("%s was lost\n%s", what, buffer[:runtime.Stack(buffer, true)])
	}
	return v
}

// A wake-up may come after the reactor has ended: it must not write into
// whatever got the number of the descriptor by then.
func TestEpollWakeAfterClose(t *testing.T) {
	noLeak(t)
	before := descriptors(t)
	p, err := reactor.NewEpoll()
	if err != nil {
		t.Fatal(err)
	}
	used := len(descriptors(t)) - len(before)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	var strangers []*closer // sockets in the place of what was closed
	for range used {
		one, other := pair(t)
		strangers = append(strangers, one, other)
	}
	p.Wake()
	for _, s := range strangers {
		if n, err := unix.Read(s.fd, make([]byte, 8)); err != unix.EAGAIN {
			t.Errorf("a stranger's socket: read %d bytes, %v", n, err)
		}
	}
}
