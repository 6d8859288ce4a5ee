package reactor_test

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
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

// realReactor runs a reactor on a real epoll set until the end of the test.
func realReactor(t testing.TB, h *hooks) *reactor.Reactor[int] {
	t.Helper()
	noLeak(t)
	r, err := reactor.New[int](h, reactor.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- r.Run() }()
	t.Cleanup(func() {
		r.Stop()
		if err := within(t, "the end", ended); err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return r
}

// on runs f on the goroutine of a real reactor.
func on(t testing.TB, r *reactor.Reactor[int], f func()) {
	t.Helper()
	done := make(chan struct{})
	if err := r.Do(func() { defer close(done); f() }); err != nil {
		t.Fatal(err)
	}
	within(t, "a command", done)
}

// The descriptor of the second client is reused while its event is in the
// batch already: the kernel cannot take that event back.
func TestEpollDescriptorReusedWithinBatch(t *testing.T) {
	h := new(hooks)
	r := realReactor(t, h)
	events := make(chan string, 100)
	var slots [2]*slot
	var generations [2]uint32
	ours, peers := make([]*closer, 3), make([]*closer, 3)
	for i := range ours {
		ours[i], peers[i] = pair(t)
	}
	reused := -1
	h.OnReady = func(s *slot, e reactor.Events) {
		if s.Generation() != generations[0] && s.Generation() != generations[1] {
			events <- name(e) // the newcomer's
			return
		}
		if e&reactor.Readable == 0 || reused >= 0 {
			return
		}
		// Whichever comes first closes the other and puts a newcomer there.
		other := 0
		if s == slots[0] {
			other = 1
		}
		reused = slots[other].FD()
		r.Remove(slots[other])
		if err := unix.Dup3(ours[2].fd, reused, unix.O_CLOEXEC); err != nil {
			t.Error(err)
		}
		if _, err := r.Add(reused); err != nil {
			t.Error(err)
		}
	}
	on(t, r, func() {
		for i := range slots {
			slots[i], _ = r.Add(ours[i].fd)
			generations[i] = slots[i].Generation()
		}
		// Both are readable before the reactor looks, so one batch has both.
		write(t, peers[0].fd, "a")
		write(t, peers[1].fd, "b")
	})
	if got := within(t, "the newcomer's own event", events); got != "W" {
		t.Errorf("the newcomer was told %q, want W: its own readiness to write", got)
	}
	write(t, peers[2].fd, "c")
	if got := within(t, "the newcomer's byte", events); got != "RW" {
		t.Errorf("the newcomer was told %q, want RW", got)
	}
}

func TestEpollExpiry(t *testing.T) {
	expired := make(chan int64, 1)
	var r *reactor.Reactor[int]
	h := &hooks{OnExpired: func(s *slot) {
		expired <- r.Now()
		r.Remove(s)
	}}
	r = realReactor(t, h)
	ours, _ := pair(t)
	var deadline int64
	on(t, r, func() {
		s, err := r.Add(ours.fd)
		if err != nil {
			t.Fatal(err)
		}
		deadline = r.BatchTime() + int64(20*time.Millisecond)
		r.SetDeadline(s, deadline)
	})
	if at := within(t, "the deadline", expired); at < deadline {
		t.Errorf("expired %v before the deadline", time.Duration(deadline-at))
	}
}

// TestEpollLosesNothing serves many clients that ask and wait for the answer.
// Whatever is lost between the kernel, the reactor and the owners (an edge, a
// message, a wake-up) leaves a client waiting for ever.
func TestEpollLosesNothing(t *testing.T) {
	const (
		clients = 24
		rounds  = 400
		owners  = 4
	)
	h := new(hooks)
	r := realReactor(t, h)
	tasks := make(chan *slot, clients)
	gone := make(chan struct{}, clients)
	quit := make(chan struct{})
	var waited, refused, posted atomic.Int64
	var pool sync.WaitGroup
	t.Cleanup(pool.Wait)
	t.Cleanup(func() { close(quit) })
	h.OnReady = func(s *slot, e reactor.Events) {
		if e&reactor.Readable == 0 {
			return
		}
		r.TakeReadable(s)
		tasks <- s
	}
	h.OnReturned = func(s *slot) {
		if s.Seen()&reactor.Readable != 0 {
			r.TakeReadable(s)
			tasks <- s
		}
	}
	// echo answers what has come, and in turn gives the client back in each way
	// there is, or waits for more of it.
	echo := func(s *slot, buffer []byte) {
		for {
			s.ClearReadable()
			n, err := unix.Read(s.FD(), buffer)
			if n > 0 {
				s.Value++
				if _, err := unix.Write(s.FD(), buffer[:n]); err != nil {
					t.Errorf("write: %v", err)
				}
				continue
			}
			if err != unix.EAGAIN {
				gone <- struct{}{}
				return
			}
			switch s.Value % 3 {
			case 0:
				s.Wait(reactor.Readable, 0, nil)
				waited.Add(1)
			case 1:
				posted.Add(1)
				r.Post(s)
				return
			default:
				if _, released := s.Release(); released {
					return
				}
				refused.Add(1)
			}
		}
	}
	for range owners + clients { // as many may park
		pool.Go(func() {
			buffer := make([]byte, 64)
			for {
				select {
				case s := <-tasks:
					echo(s, buffer)
				case <-quit:
					return
				}
			}
		})
	}
	var asking sync.WaitGroup
	for number := range clients {
		ours, peer := pair(t)
		on(t, r, func() {
			if _, err := r.Add(ours.fd); err != nil {
				t.Error(err)
			}
		})
		file := os.NewFile(uintptr(peer.fd), "client")
		peer.once.Do(func() {}) // the file closes it
		asking.Go(func() {
			defer file.Close()
			ask(t, file, number, rounds)
		})
	}
	done := make(chan struct{})
	go func() { asking.Wait(); close(done) }()
	within(t, "an answer", done)
	for range clients {
		within(t, "the end of a client", gone)
	}
	t.Logf("waited %d, Release refused %d, posted %d", waited.Load(), refused.Load(), posted.Load())
}

func ask(t *testing.T, conn *os.File, number, rounds int) {
	conn.SetDeadline(time.Now().Add(25 * time.Second))
	question, answer := []byte{byte(number), 0}, make([]byte, 2)
	for round := range rounds {
		question[1] = byte(round)
		// In two pieces, so that one comes while the other is being answered.
		for i := range question {
			if _, err := conn.Write(question[i : i+1]); err != nil {
				t.Errorf("client %d, round %d: %v", number, round, err)
				return
			}
		}
		if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != string(question) {
			t.Errorf("client %d, round %d: answer %v, %v", number, round, answer, err)
			return
		}
	}
}

// TestEpollPostStress: goroutines post as the reactor falls asleep.
func TestEpollPostStress(t *testing.T) {
	const (
		clients = 4
		rounds  = 10_000
	)
	pool := make(chan *slot, clients)
	finished := make(chan struct{}, clients)
	var r *reactor.Reactor[int]
	h := &hooks{OnReturned: func(s *slot) {
		if s.Value++; s.Value == rounds {
			finished <- struct{}{}
			return
		}
		r.Take(s)
		pool <- s
	}}
	r = realReactor(t, h)
	var owners sync.WaitGroup
	for range clients {
		owners.Go(func() {
			for s := range pool {
				r.Post(s)
			}
		})
	}
	t.Cleanup(owners.Wait)
	t.Cleanup(func() { close(pool) })
	for range clients {
		ours, _ := pair(t)
		on(t, r, func() {
			s, err := r.Add(ours.fd)
			if err != nil {
				t.Fatal(err)
			}
			r.Take(s)
			pool <- s
		})
	}
	for range clients {
		within(t, "a message", finished)
	}
}
