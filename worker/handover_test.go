package worker

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// In blocking mode, where a place waits for each client, they go as well.
func TestHandOverInBlockingMode(t *testing.T) {
	g := startTeam(t, 2, nil, func(o *Options) { o.QueueRequests, o.MaxThreads = false, 8 })
	g.only(0)
	idle, partial := dialTCP(t, g.master.addr), dialTCP(t, g.master.addr)
	for _, c := range []*client{idle, partial} {
		c.send(request("/a", "x"))
		if who := c.served("/a x"); who != "0" {
			t.Fatalf("served by %s, want 0", who)
		}
	}
	g.only(1)
	g.leave(0)
	next := request("/b", "y")
	idle.send(next)
	partial.send(next[:9])
	partial.send(next[9:])
	for _, c := range []*client{idle, partial} {
		if who := c.served("/b y"); who != "1" {
			t.Errorf("served by %s, want 1", who)
		}
	}
}

// Requests that a connection served before it was handed over count against
// MaxKeepAlive.
func TestHandOverKeepsTheCount(t *testing.T) {
	g := startTeam(t, 2, nil, func(o *Options) { o.MaxKeepAlive = 2 })
	g.only(0)
	c := dialTCP(t, g.master.addr)
	c.send(request("/a", "x"))
	c.answered(t, false)
	g.only(1)
	g.leave(0)
	c.send(request("/a", "x"))
	c.answered(t, true)
}

// arrive makes a connection that a sibling has handed over.
func (k *fakeKernel) arrive(r handOverRecord) *fakeSocket {
	k.t.Helper()
	k.mu.Lock()
	c := &fakeSocket{kernel: k, fd: 100 + len(k.sockets), room: -1}
	k.sockets[c.fd] = c
	k.mu.Unlock()
	if err := k.reactor.Do(func() { k.takeOver(c.fd, &r) }); err != nil {
		k.t.Fatal(err)
	}
	synctest.Wait()
	return c
}

// The time that a client has does not begin anew.
func TestHandOverKeepsDeadlines(t *testing.T) {
	change := func(o *Options) {
		o.Timeouts.Head, o.Timeouts.Idle, o.Timeouts.FirstByte = 20*time.Second, time.Minute, 10*time.Second
	}
	for _, c := range []struct {
		name   string
		record handOverRecord
		left   time.Duration
		want   string // the answer
	}{
		{"half a head", handOverRecord{Served: 1, Age: int64(15 * time.Second), HeadAge: int64(15 * time.Second), Bytes: []byte("GET / HT")}, 5 * time.Second, "HTTP/1.1 408 "},
		{"idle", handOverRecord{Served: 1, Age: int64(50 * time.Second), HeadAge: -1}, 10 * time.Second, ""},
		{"new", handOverRecord{Age: int64(4 * time.Second), HeadAge: -1}, 6 * time.Second, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, hello, change, func(t *testing.T, k *fakeKernel) {
				began := time.Now()
				socket := k.arrive(c.record)
				k.pass(c.left - time.Second)
				if !socket.shutAt.IsZero() || len(socket.out) > 0 {
					t.Errorf("ended after %v, answer %q", socket.shutAt.Sub(began), socket.out)
				}
				k.pass(2 * time.Second)
				if socket.shutAt.IsZero() || !strings.HasPrefix(string(socket.out), c.want) {
					t.Errorf("not ended after %v, answer %q", time.Since(began), socket.out)
				}
			})
		})
	}
}
