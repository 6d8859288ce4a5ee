package worker

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/catamount-server/catamount/internal/page"
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
				if now := socket.state(); !now.shutAt.IsZero() || len(now.out) > 0 {
					t.Errorf("ended after %v, answer %q", now.shutAt.Sub(began), now.out)
				}
				k.pass(2 * time.Second)
				if now := socket.state(); now.shutAt.IsZero() || !strings.HasPrefix(string(now.out), c.want) {
					t.Errorf("not ended after %v, answer %q", time.Since(began), now.out)
				}
			})
		})
	}
}

// Clients that pipeline, and send in pieces of any size, while workers come and
// go: every answer comes, in order, on the same connection.
func TestHandOverAtRandom(t *testing.T) {
	const clients, rounds = 16, 25
	g := newTeam(t, 3)
	echo := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("reading a body: %v", err)
		}
		_, _ = w.Write(body)
	}
	current := []*testServer{g.add(0, echo), g.add(1, echo)}
	stop := make(chan struct{})
	var group sync.WaitGroup
	var total atomic.Int64
	for i := range clients {
		c := dialTCP(t, g.master.addr)
		group.Go(func() { total.Add(int64(c.pipelineAtRandom(rand.New(rand.NewPCG(uint64(i), 7)), stop))) })
	}
	free := 2
	for range rounds {
		for i, old := range current {
			next := g.add(free, echo)
			g.page.Slot(old.options.Index).State.Store(uint32(page.Draining))
			old.beginHandOver(g.master.pair[0], old.reactor.Now()+int64(patience))
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			if err := old.Shutdown(ctx); err != nil {
				t.Fatalf("%v; %+v", err, old.Stats())
			}
			cancel()
			g.page.Slot(old.options.Index).Reset()
			current[i], free = next, old.options.Index
		}
	}
	close(stop)
	group.Wait()
	var st Stats
	current[0].until("what was handed over last taken over", func() bool { // its clients did not wait for it
		st = Add(Add(ReadStats(g.page.Slot(0)), ReadStats(g.page.Slot(1))), ReadStats(g.page.Slot(2)))
		return st.HandedOver == st.TakenOver
	})
	t.Logf("%d requests of %d clients, %d handed over", total.Load(), clients, st.HandedOver)
	if st.Accepted != clients {
		t.Errorf("%d connections of %d clients", st.Accepted, clients)
	}
}

// pipelineAtRandom sends requests until it is told to stop, and returns how many.
func (c *client) pipelineAtRandom(random *rand.Rand, stop chan struct{}) (n int) {
	for {
		select {
		case <-stop:
			return n
		default:
		}
		var text strings.Builder
		batch := 1 + random.IntN(3)
		for i := range batch {
			text.WriteString(request("/", fmt.Sprintf("number %d%s", n+i, strings.Repeat(".", random.IntN(300)))))
		}
		for rest := text.String(); rest != ""; {
			size := min(1+random.IntN(200), len(rest))
			if _, err := io.WriteString(c, rest[:size]); err != nil {
				c.t.Errorf("request %d: %v", n, err)
				return n
			}
			rest = rest[size:]
			runtime.Gosched()
		}
		for range batch {
			r, err := http.ReadResponse(c.reader, nil)
			if err != nil {
				c.t.Errorf("request %d: %v", n, err)
				return n
			}
			body, err := io.ReadAll(r.Body)
			if want := fmt.Sprintf("number %d", n); err != nil || strings.TrimRight(string(body), ".") != want || r.Close {
				c.t.Errorf("answer %q, %v, close %t; want %q", body, err, r.Close, want)
				return n
			}
			n++
		}
	}
}
