package reactor_test

import (
	"io"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/catamount-server/catamount/reactor"
	"golang.org/x/sys/unix"
)

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
