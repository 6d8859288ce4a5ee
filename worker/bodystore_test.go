package worker

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/catamount-server/catamount/reactor"
)

// received makes a body of so many bytes that come in pieces of the given sizes,
// the last of which repeats. They are received as the reactor does it: where the
// body has room for them, or else somewhere.
func received(t *testing.T, content, framing string, budget *blockBudget, options *Options, sizes ...int) *requestBody {
	t.Helper()
	b := &requestBody{stored: stored{budget: budget}, remaining: int64(len(content))}
	input := content
	if framing == "chunked" {
		b.remaining, input = -1, chunks(content)
	}
	input += "behind"
	for i := 0; ; i++ {
		target := make([]byte, sizes[min(i, len(sizes)-1)])
		if room := b.room(b.remaining, options); room != nil {
			if int64(len(room)) > b.remaining {
				t.Fatalf("room for %d bytes, %d of the body are to come", len(room), b.remaining)
			}
			target = room[:min(len(room), len(target))]
		}
		n := copy(target, input)
		input = input[n:]
		rest, whole, err := b.fill(target[:n], options)
		if err != nil {
			t.Fatal(err)
		}
		if whole {
			if behind := string(rest) + input; behind != "behind" {
				t.Fatalf("behind the body: %q", clip(behind))
			}
			return b
		}
	}
}

// parts is how many bytes of a body are where.
func (b *requestBody) parts(t *testing.T) (memory, blocks, file int64) {
	t.Helper()
	if b.memory != nil {
		memory = int64(len(b.memory.B))
	}
	if b.file != nil {
		info, err := b.file.Stat()
		if err != nil {
			t.Fatal(err)
		}
		file = info.Size()
	}
	return memory, b.inBlocks, file
}

// Whatever the parts, and however the bytes come: they are read as they were
// sent.
func TestBodyParts(t *testing.T) {
	const limit = 10_000
	const share = 4 << 20 / blockShare // four blocks
	for _, size := range []int{1, limit - 1, limit, limit + 1, limit + blockSize, limit + blockSize + 1, limit + share, limit + share + 1, 2 * share} {
		content := pattern(size)
		for name, sizes := range map[string][]int{
			"whole": {3 * share}, "by kilobytes": {1023}, "by the buffer": {readSize}, "byte by byte at the boundary": {limit - 3, 1, 1, 1, 1, 1, 1, readSize},
			"byte by byte in a block": {limit, blockSize - 3, 1, 1, 1, 1, 1, 1, readSize},
		} {
			for _, framing := range []string{"length", "chunked"} {
				for _, total := range []int64{0, 4 << 20} {
					t.Run(fmt.Sprintf("%d %s, %s, %d", size, name, framing, total), func(t *testing.T) {
						budget := &blockBudget{total: total}
						options := &Options{BodyMemory: limit, BodyDirectory: t.TempDir()}
						b := received(t, content, framing, budget, options, sizes...)
						memory, blocks, file := b.parts(t)
						want := [3]int64{min(int64(size), limit), min(int64(max(size-limit, 0)), share), int64(max(size-limit-share, 0))}
						if total == 0 && size > limit {
							want = [3]int64{0, 0, int64(size)}
						} else if total == 0 {
							want = [3]int64{int64(size)}
						}
						if got := [3]int64{memory, blocks, file}; got != want {
							t.Errorf("memory, blocks and file have %d bytes, want %d", got, want)
						}
						readBoth(t, b, content)
						b.release(http.ErrBodyReadAfterClose)
						b.release(http.ErrBodyReadAfterClose)
						if n := budget.used.Load(); n != 0 {
							t.Errorf("%d bytes still count", n)
						}
					})
				}
			}
		}
	}
}

// readBoth reads a body by Read, by WriteTo, and by one after the other.
func readBoth(t *testing.T, b *requestBody, content string) {
	t.Helper()
	check := func(how string, got []byte, err error) {
		t.Helper()
		if string(got) != content || err != nil {
			t.Errorf("%s: %d bytes, %v; want %d", how, len(got), err, len(content))
		}
		if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("%s: at the end Read = %d, %v", how, n, err)
		}
		if n, err := b.WriteTo(io.Discard); n != 0 || err != nil {
			t.Errorf("%s: at the end WriteTo = %d, %v", how, n, err)
		}
		b.offset = 0
	}
	got, err := io.ReadAll(b)
	check("Read", got, err)
	got, err = io.ReadAll(iotest.HalfReader(b))
	check("Read by halves", got, err)
	var written bytes.Buffer
	n, err := io.Copy(&written, b)
	if n != int64(len(content)) {
		t.Errorf("Copy = %d", n)
	}
	check("WriteTo", written.Bytes(), err)
	written.Reset()
	if _, err = io.CopyN(&written, b, int64(len(content)/2)); err == nil {
		_, err = io.Copy(&written, b)
	}
	check("Read, then WriteTo", written.Bytes(), err)
}

// A writer's error ends WriteTo; a reader may go on behind what it was given.
func TestWriteToFails(t *testing.T) {
	content := pattern(3 * blockSize)
	b := received(t, content, "length", &blockBudget{total: 8 << 20}, &Options{BodyMemory: 1000}, readSize)
	for _, test := range []struct {
		w    io.Writer
		want error
	}{{failingWriter{errors.New("full")}, errors.New("full")}, {failingWriter{}, io.ErrShortWrite}} {
		if n, err := b.WriteTo(test.w); n != 10 || err == nil || err.Error() != test.want.Error() {
			t.Errorf("WriteTo = %d, %v; want %v", n, err, test.want)
		}
	}
	if rest, err := io.ReadAll(b); string(rest) != content[1000+blockSize:] || err != nil {
		t.Errorf("then come %d bytes, %v", len(rest), err)
	}
	b.offset = 0
	b.setReadDeadline(time.Unix(1, 0))
	if n, err := b.WriteTo(io.Discard); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline WriteTo = %d, %v", n, err)
	}
	b.release(http.ErrBodyReadAfterClose)
	if n, err := b.WriteTo(io.Discard); n != 0 || err != http.ErrBodyReadAfterClose {
		t.Errorf("after the handler WriteTo = %d, %v", n, err)
	}
}

// failingWriter takes ten bytes.
type failingWriter struct{ err error }

func (w failingWriter) Write(p []byte) (int, error) { return min(len(p), 10), w.err }

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

// Where the budget is used up by others a body goes to the file, wherever it is
// just then.
func TestBodyAmongOthers(t *testing.T) {
	const limit = 1000
	for _, free := range []int{0, 1, 2, 3} {
		for _, framing := range []string{"length", "chunked"} {
			budget := &blockBudget{total: 64 * blockSize}
			budget.used.Store(int64(64-free) * blockSize)
			content := pattern(limit + 4*blockSize)
			b := received(t, content, framing, budget, &Options{BodyMemory: limit, BodyDirectory: t.TempDir()}, 100_000)
			memory, blocks, file := b.parts(t)
			// Of two left the second would be the last: one is for the others.
			want := int64(map[int]int{1: 1, 2: 1, 3: 2}[free]) * blockSize
			if blocks != want || memory+blocks+file != int64(len(content)) || (memory == 0) != (free == 0) {
				t.Errorf("%d blocks free, %s: %d, %d and %d bytes", free, framing, memory, blocks, file)
			}
			readBoth(t, b, content)
			b.release(http.ErrBodyReadAfterClose)
			if n := budget.used.Load(); n != int64(64-free)*blockSize {
				t.Errorf("%d bytes count", n)
			}
		}
	}
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
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
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

// Between two turns of a fast upload others have theirs.
func TestUploadsTakeTurns(t *testing.T) {
	var order []int // descriptors, at each read
	change := func(o *Options) {
		o.BodyMemoryTotal = 64 << 20
		receive := o.sockets.receive
		o.sockets.receive = func(fd int, p []byte) (int, error) {
			order = append(order, fd)
			return receive(fd, p)
		}
	}
	inBubble(t, hello, change, func(t *testing.T, k *fakeKernel) {
		large, small := k.connect(), k.connect()
		large.send(post(pattern(8 << 20))[:1<<20])
		order = nil
		hold := make(chan struct{})
		if err := k.reactor.Do(func() { <-hold }); err != nil {
			t.Fatal(err)
		}
		for _, c := range []*fakeSocket{large, small} {
			c.put(map[*fakeSocket]string{large: pattern(4 << 20), small: get}[c], false)
			c.event(reactor.Readable | reactor.Writable)
		}
		close(hold)
		synctest.Wait()
		before, all := slices.Index(order, small.fd), len(order)
		if before < 0 || before > 2 || all < 16 {
			t.Errorf("the small request was read after %d of %d reads", before, all)
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
