package worker

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/catamount-server/catamount/reactor"
)

// A body gets its share, and no more than it leaves; what is given back can be
// had again.
func TestBlockBudget(t *testing.T) {
	budget := &blockBudget{total: 16 * blockSize}
	held := make([][]*block, 6)
	for i, want := range []int{4, 4, 4, 2, 1, 1} {
		for {
			block := budget.take(len(held[i]))
			if block == nil {
				break
			}
			held[i] = append(held[i], block)
		}
		if len(held[i]) != want {
			t.Errorf("body %d gets %d blocks, want %d", i, len(held[i]), want)
		}
	}
	if budget.take(0) != nil {
		t.Error("a block beyond the budget")
	}
	budget.giveBack(held[0])
	if n := budget.used.Load(); n != 12*blockSize {
		t.Errorf("%d bytes count after one of six has gone", n)
	}
	if budget.take(1) == nil || budget.take(0) == nil {
		t.Error("what was given back cannot be had")
	}
	if new(blockBudget).take(0) != nil {
		t.Error("a block of no budget")
	}
}

// Between two turns of a fast upload everybody else has theirs, and several
// uploads alternate, but not at each turn.
func TestUploadsTakeTurns(t *testing.T) {
	var mu sync.Mutex
	var order []int // descriptors, at each read
	change := func(o *Options) {
		o.BodyMemoryTotal = 64 << 20
		receive := o.sockets.receive
		o.sockets.receive = func(fd int, p []byte) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, fd)
			return receive(fd, p)
		}
	}
	inBubble(t, hello, change, func(t *testing.T, k *fakeKernel) {
		const size = 8 << 20
		one, two, small := k.connect(), k.connect(), k.connect()
		hold := make(chan struct{})
		if err := k.reactor.Do(func() { <-hold }); err != nil {
			t.Fatal(err)
		}
		one.put(post(pattern(size)), false)
		two.put(post(pattern(size)), false)
		small.put(get, false)
		for _, c := range []*fakeSocket{one, two, small} {
			c.event(reactor.Readable | reactor.Writable)
		}
		close(hold)
		synctest.Wait()
		for _, c := range []*fakeSocket{one, two, small} {
			if got := c.received(); !strings.HasSuffix(got, "Hello, World!") {
				t.Errorf("answer %q", got)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if before := slices.Index(order, small.fd); before < 0 || before > 2*readShare/readSize+2 {
			t.Errorf("the small request was read after %d of %d reads", before, len(order))
		}
		longest, changes, run := 0, 0, 0
		for i, fd := range order {
			if i > 0 && fd != order[i-1] {
				changes, run = changes+1, 0
			}
			run++
			longest = max(longest, run)
		}
		if longest > 2*turnsInARow || changes > 2*size/readShare/turnsInARow+4 {
			t.Errorf("%d reads of one in a row, %d changes between them: %d", longest, changes, order)
		}
	})
}

// However a request with a body in blocks ends, they are given back.
func TestBlocksAreGivenBack(t *testing.T) {
	const size = 700_000
	entered, leave := make(chan *exchange, 1), make(chan struct{})
	handler := func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/unread":
		case "/read":
			_, _ = io.Copy(io.Discard, r.Body)
		case "/panic":
			panic(http.ErrAbortHandler)
		case "/close":
			r.Body.Close()
			if n := exchangeOf(r).server.blocks.used.Load(); n != 0 {
				t.Errorf("%d bytes count after Close", n)
			}
		case "/hijack":
			conn := hijack(t, w)
			if conn == nil {
				return
			}
			conn.Close()
		case "/wait":
			entered <- exchangeOf(r)
			<-leave
		}
	}
	head := func(path, lines string) string {
		return "POST " + path + " HTTP/1.1\r\nHost: h\r\n" + lines + "\r\n"
	}
	length := fmt.Sprintf("Content-Length: %d\r\n", size)
	body := pattern(size)
	for name, play := range map[string]func(t *testing.T, ts *testServer, c *client){
		"read, and read again": func(t *testing.T, _ *testServer, c *client) {
			for range 3 {
				c.send(head("/read", length), body)
				c.want(200, "")
			}
		},
		"unread":   func(_ *testing.T, _ *testServer, c *client) { c.send(head("/unread", length), body); c.want(200, "") },
		"closed":   func(_ *testing.T, _ *testServer, c *client) { c.send(head("/close", length), body); c.want(200, "") },
		"panic":    func(_ *testing.T, _ *testServer, c *client) { c.send(head("/panic", length), body); c.wantEnd() },
		"hijacked": func(_ *testing.T, _ *testServer, c *client) { c.send(head("/hijack", length), body); c.wantEnd() },
		"the client vanishes": func(_ *testing.T, ts *testServer, c *client) {
			c.send(head("/read", length), body[:size/2])
			ts.until("it has blocks", func() bool { return ts.Stats().HeldBodies > 0 })
			c.reset()
		},
		"the client leaves while the handler runs": func(t *testing.T, ts *testServer, c *client) {
			c.send(head("/wait", length), body)
			x := waitFor(t, entered)
			c.reset()
			<-x.context.Done()
			if ts.Stats().HeldBodies == 0 {
				t.Error("the body is gone while its handler runs")
			}
			leave <- struct{}{}
		},
		"too large": func(_ *testing.T, _ *testServer, c *client) {
			c.send(head("/read", "Transfer-Encoding: chunked\r\n"), strings.Repeat("10000\r\n"+body[:1<<16]+"\r\n", 13))
			if a := c.answer(); a.StatusCode != 413 {
				c.t.Errorf("answer %s", a.Status)
			}
		},
		"bad chunk": func(_ *testing.T, _ *testServer, c *client) {
			c.send(head("/read", "Transfer-Encoding: chunked\r\n"), strings.Repeat("10000\r\n"+body[:1<<16]+"\r\n", 9), "x")
			if a := c.answer(); a.StatusCode != 400 {
				c.t.Errorf("answer %s", a.Status)
			}
		},
		"the server ends": func(_ *testing.T, ts *testServer, c *client) {
			c.send(head("/read", length), body[:size/2])
			ts.until("it has blocks", func() bool { return ts.Stats().HeldBodies > 0 })
			ts.stop()
		},
	} {
		t.Run(name, func(t *testing.T) {
			modes(t, func(t *testing.T, mode func(*Options)) {
				ts := startServer(t, handler, mode, func(o *Options) {
					o.BodyMemoryTotal, o.Limits.Body = 64<<20, 800_000
				})
				play(t, ts, ts.dial())
				ts.until("no body holds a block", func() bool { return ts.blocks.used.Load() == 0 })
			})
		})
	}
}

// A slow upload ends as every other does, with its blocks, and so many bytes
// in a row do not shield it.
func TestSlowUploadGivesItsBlocksBack(t *testing.T) {
	change := func(o *Options) {
		o.BodyMemory, o.BodyMemoryTotal = 1000, 64<<20
		o.Timeouts = Timeouts{BodyMinRate: 500, BodyGrace: 20 * time.Second, Linger: 2 * time.Second}
	}
	inBubble(t, hello, change, func(t *testing.T, k *fakeKernel) {
		c := k.connect()
		start := time.Now()
		c.send(post(pattern(1_000_000))[:600_000])
		if n := k.blocks.used.Load(); n != 3*blockSize {
			t.Errorf("%d bytes count, want three blocks", n)
		}
		k.pass(time.Minute)
		k.want408(c, start, 20*time.Second)
		if n := k.blocks.used.Load(); n != 0 {
			t.Errorf("%d bytes count after the 408", n)
		}
	})
}

// A writer that is slower than its handler keeps what it was given: nobody else
// gets it meanwhile.
func TestWriteToOutlivesTheHandler(t *testing.T) {
	content, other := pattern(1000+blockSize), strings.Repeat("other", blockSize/4)
	pieces, goOn, ended := make(chan []byte), make(chan struct{}), make(chan error, 1)
	var kept []byte
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery != "slow" {
			_, _ = io.Copy(io.Discard, r.Body)
			return
		}
		body := r.Body
		go func() {
			_, err := io.Copy(writerFunc(func(p []byte) (int, error) {
				pieces <- p
				<-goOn
				return len(p), nil
			}), body)
			ended <- err
		}()
		waitFor(t, pieces) // from BodyMemory
		goOn <- struct{}{}
		kept = waitFor(t, pieces) // a block, which is being written from now on
	}, func(o *Options) { o.BodyMemory, o.BodyMemoryTotal = 1000, 8<<20 })
	c := ts.dial()
	c.send(strings.Replace(post(content), " / ", " /?slow ", 1))
	c.want(200, "")
	for range 5 {
		c.send(post(other))
		c.want(200, "")
	}
	if string(kept) != content[1000:] {
		t.Error("what is being written has changed")
	}
	ts.until("only that block counts", func() bool { return ts.blocks.used.Load() == blockSize })
	goOn <- struct{}{}
	if err := waitFor(t, ended); !errors.Is(err, http.ErrBodyReadAfterClose) {
		t.Errorf("the copy ends with %v", err)
	}
	ts.until("no body holds a block", func() bool { return ts.blocks.used.Load() == 0 })
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
