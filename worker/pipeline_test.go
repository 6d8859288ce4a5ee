package worker

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Answers to requests that came together leave together: in one write, in
// order.
func TestPipelineIsOneWrite(t *testing.T) {
	echo := func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.Path) }
	inBubble(t, echo, nil, func(t *testing.T, k *fakeKernel) {
		c := k.connect()
		var input strings.Builder
		for i := range 16 {
			input.WriteString(getPath(fmt.Sprintf("/%02d", i)))
		}
		for round := 1; round <= 3; round++ {
			c.send(input.String())
			got := c.received()
			last := -1
			for i := range 16 {
				at := strings.Index(got, fmt.Sprintf("\r\n\r\n/%02d", i))
				if at < last || at < 0 {
					t.Fatalf("answer %d is missing or out of order in %q", i, got)
				}
				last = at
			}
			if n := c.state().writes; n != round {
				t.Errorf("%d writes after %d rounds", n, round)
			}
		}
	})
}

// What has been served is not kept, also when there is never a moment without a
// part of the next request.
func TestEndlessPipelineHoldsNoMemory(t *testing.T) {
	for name, blocking := range map[string]bool{"reactor": false, "blocking": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, hello, func(o *Options) { o.QueueRequests = !blocking }, func(t *testing.T, k *fakeKernel) {
				c := k.connect()
				request := getPath("/", "X-Long: "+strings.Repeat("x", 1000))
				half := len(request) / 2
				c.send(request[:half])
				for range 1000 {
					c.send(request[half:] + request[:half])
				}
				if n := strings.Count(c.received(), "Hello, World!"); n != 1000 {
					t.Errorf("%d answers, want 1000", n)
				}
				held := make(chan int, 1)
				_ = k.reactor.Do(func() {
					k.reactor.Each(func(sl *slot, _ bool) { held <- cap(sl.Value.pending.in.B) })
				})
				if n := <-held; n > 64<<10 {
					t.Errorf("%d bytes are kept for %d that are not served", n, half)
				}
			})
		})
	}
}

// Answers of all sizes and framings, in order, through a socket that takes
// little at a time.
func TestPipelineOfLargeAnswers(t *testing.T) {
	sized := func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Path[1:])
		body := strings.Repeat(string(rune('a'+n%26)), n)
		for len(body) > 0 { // in pieces of different sizes
			m := min(len(body), 1+len(body)/3)
			_, _ = io.WriteString(w, body[:m])
			body = body[m:]
		}
	}
	inBubble(t, sized, func(o *Options) { o.OutputMemory = 20_000 }, func(t *testing.T, k *fakeKernel) {
		sizes := []int{0, 1, 5000, 70_000, 12, 4096, 4097, 300_000, 3, 16384, 2}
		c := k.connect()
		c.setRoom(0)
		var input strings.Builder
		for _, size := range sizes {
			input.WriteString(getPath("/" + strconv.Itoa(size)))
		}
		c.send(input.String())
		var got strings.Builder
		for range 10_000 {
			c.take(777)
			more := c.received()
			if got.WriteString(more); more == "" {
				break
			}
		}
		rest := got.String()
		for _, size := range sizes {
			var body string
			body, rest = cutAnswer(t, rest)
			if want := strings.Repeat(string(rune('a'+size%26)), size); body != want {
				t.Fatalf("body of %d bytes %q, want %d", len(body), clip(body), size)
			}
		}
		if rest != "" {
			t.Errorf("behind the last answer: %q", clip(rest))
		}
	})
}

// cutAnswer takes one answer off the front and returns its body.
func cutAnswer(t *testing.T, raw string) (body, rest string) {
	t.Helper()
	r := strings.NewReader(raw)
	c := &client{t: t, reader: bufio.NewReader(r)}
	a := c.answer()
	if a.err != nil {
		t.Fatalf("body: %v", a.err)
	}
	return a.body, raw[len(raw)-r.Len()-c.reader.Buffered():]
}

// A slow handler does not delay the answers before it.
func TestSlowHandlerDelaysNobodyBeforeIt(t *testing.T) {
	gate := make(chan struct{})
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			waitFor(t, gate)
		}
		_, _ = io.WriteString(w, r.URL.Path)
	})
	c := ts.dial()
	c.send(getPath("/1"), getPath("/2"), getPath("/slow"), getPath("/4"))
	c.want(200, "/1")
	c.want(200, "/2") // while the third handler runs
	close(gate)
	c.want(200, "/slow")
	c.want(200, "/4")
}

// Nor does one that writes a little and then waits.
func TestSlowWriterDelaysNobodyBeforeIt(t *testing.T) {
	gate := make(chan struct{})
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.URL.Path)
		if r.URL.Path == "/slow" {
			waitFor(t, gate)
		}
	})
	c := ts.dial()
	c.send(getPath("/1"), getPath("/2"), getPath("/slow"))
	c.want(200, "/1")
	c.want(200, "/2")
	close(gate)
	c.want(200, "/slow")
}

// What a full socket did not take of the answers before a slow handler follows
// as soon as the client makes room.
func TestSlowHandlerBehindAFullSocket(t *testing.T) {
	handler := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-time.After(time.Minute)
		}
		_, _ = io.WriteString(w, strings.Repeat("x", 1000)+r.URL.Path)
	}
	inBubble(t, handler, nil, func(t *testing.T, k *fakeKernel) {
		c := k.connect()
		c.setRoom(100)
		c.send(getPath("/1") + getPath("/slow"))
		k.pass(time.Second)
		c.take(-1)
		k.pass(time.Second)
		if got := c.received(); !strings.HasSuffix(got, "x/1") {
			t.Errorf("%d bytes came while the second handler runs", len(got))
		}
		k.pass(time.Minute)
	})
}

// An answer that fails before anything of it was sent takes nothing from those
// before it.
func TestAnswerBeforeAFailedOne(t *testing.T) {
	handler := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/late" {
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(-time.Second))
		}
		_, _ = io.WriteString(w, r.URL.Path)
	}
	for _, room := range []int{-1, 10} {
		inBubble(t, handler, nil, func(t *testing.T, k *fakeKernel) {
			k.pass(time.Minute) // so that the deadline is not before the server's time
			c := k.connect()
			c.setRoom(room)
			c.send(getPath("/1") + getPath("/late"))
			c.take(-1)
			k.pass(3 * time.Second) // longer than the server waits for the client to close
			if body, rest := cutAnswer(t, c.received()); body != "/1" || rest != "" {
				t.Errorf("got %q, and then %q", body, rest)
			}
			if c.state().closedAt.IsZero() {
				t.Error("the connection goes on")
			}
			if n := k.stats.writeFailures[FailureDeadline].Load(); n != 1 {
				t.Errorf("%d failed writes, want that of the second answer", n)
			}
		})
	}
}

// slowPath answers with the path, at /slow after that time.
func slowPath(d time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-time.After(d)
		}
		_, _ = io.WriteString(w, r.URL.Path)
	}
}

// A place whose answers the reactor could not send during a slow handler lends
// nothing any more when that has returned: the reactor need not look.
func TestLoanEndsBehindAFullSocket(t *testing.T) {
	inBubble(t, slowPath(time.Second), nil, func(t *testing.T, k *fakeKernel) {
		c := k.connect()
		c.setRoom(100)
		c.send(getPath("/1") + getPath("/slow"))
		k.pass(2 * time.Second)
		if n := k.loans.lenders.Load(); n != 0 {
			t.Errorf("%d places lend their output, and none serves a request", n)
		}
		c.take(-1)
		if got := c.received(); !strings.HasSuffix(got, "/slow") {
			t.Errorf("got %q", got)
		}
	})
}

// Each loan is noticed, also when the reactor has gone to sleep between the end
// of one request and the loan for the next.
func TestEachLoanIsNoticed(t *testing.T) {
	inBubble(t, slowPath(time.Minute), nil, func(t *testing.T, k *fakeKernel) {
		// The end of a request ends its watch of the base context.
		ends := 0
		k.listener.base = endingContext{context.Background(), make(chan struct{}), func() {
			if ends++; ends != 2 {
				return
			}
			waits := k.poller.Waits()
			if err := k.reactor.Do(func() {}); err != nil {
				t.Error(err)
			}
			for k.poller.Waits() == waits { // until it sleeps again
				runtime.Gosched()
			}
		}}
		c := k.connect()
		c.send(getPath("/1") + getPath("/2") + getPath("/slow"))
		k.pass(time.Second)
		if got := c.received(); !strings.Contains(got, "/1") || !strings.HasSuffix(got, "/2") {
			t.Errorf("got %q while the third handler runs", got)
		}
		k.pass(time.Minute)
	})
}

// endingContext tells of each request that does not watch it any more.
type endingContext struct {
	context.Context
	done chan struct{}
	told func()
}

func (c endingContext) Done() <-chan struct{} { return c.done }
func (c endingContext) AfterFunc(func()) (stop func() bool) {
	return func() bool { c.told(); return true }
}

// While a handler takes its time the reactor rests: what was lent to it has
// long been sent.
func TestReactorRestsDuringASlowHandler(t *testing.T) {
	slow := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-time.After(2 * time.Minute)
		}
	}
	inBubble(t, slow, nil, func(t *testing.T, k *fakeKernel) {
		c := k.connect()
		c.send(get + getPath("/slow"))
		k.pass(time.Second)
		if got := c.received(); !strings.HasPrefix(got, "HTTP/1.1 200") {
			t.Errorf("answer %q before the slow one", got)
		}
		before := k.poller.Waits()
		k.pass(time.Minute)
		if looks := k.poller.Waits() - before; looks > 20 {
			t.Errorf("the reactor woke up %d times in a minute in which nothing happened", looks)
		}
		k.pass(time.Minute)
	})
}

// A client that pipelines thousands of requests does not keep the only place
// to itself.
func TestPipeliningIsFair(t *testing.T) {
	const many, others = 5000, 8
	for _, inline := range []int{1, 32} {
		t.Run(fmt.Sprint("MaxFastInline ", inline), func(t *testing.T) {
			var order []string // only one place: only one handler at a time
			allHere := make(chan struct{})
			ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
				<-allHere
				order = append(order, r.URL.Path)
			}, func(o *Options) { o.MaxThreads, o.MaxFastInline = 1, inline })
			greedy := ts.dial()
			var rest []*client
			for range others {
				rest = append(rest, ts.dial())
			}
			ts.waitState(StateNew, others+1)
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				_, _ = io.WriteString(greedy, strings.Repeat(getPath("/greedy"), many))
			}()
			for _, c := range rest {
				c.send(getPath("/other"))
			}
			for ts.pool.Backlog() < others { // one request is being served, the rest waits
				runtime.Gosched()
			}
			close(allHere)
			for _, c := range rest {
				c.want(200, "")
			}
			for range many {
				greedy.want(200, "")
			}
			waitFor(t, sent)
			ts.stop()
			// Before the last of the others the greedy one may have had some turns,
			// each of at most so many requests.
			before, left := 0, others
			for _, path := range order {
				if path == "/other" {
					left--
				} else if left > 0 {
					before++
				}
			}
			if limit := (others + 2) * inline; before > limit || left > 0 {
				t.Errorf("%d requests of the greedy client came before the last other one, want at most %d", before, limit)
			}
		})
	}
}

// The last answer of a connection announces that it is.
func TestMaxKeepAlive(t *testing.T) {
	for name, together := range map[string]bool{"one by one": false, "pipelined": true} {
		t.Run(name, func(t *testing.T) {
			ts := startServer(t, hello, func(o *Options) { o.MaxKeepAlive = 3 })
			c := ts.dial()
			if together {
				c.send(strings.Repeat(get, 5))
			}
			for i := 1; i <= 3; i++ {
				if !together {
					c.send(get)
				}
				if a := c.want(200, "Hello, World!"); a.Close != (i == 3) {
					t.Errorf("answer %d: close announced: %t", i, a.Close)
				}
			}
			c.wantEnd()
			if n := ts.Stats().RequestsCount; n != 3 {
				t.Errorf("%d requests served", n)
			}
		})
	}
}

// A client that waits for 100 Continue gets it also when its request came
// behind one whose answer it has yet to take.
func TestContinueBehindASlowAnswer(t *testing.T) {
	inBubble(t, writeBig, func(o *Options) { o.OutputMemory = 2 * bigAnswer }, func(t *testing.T, k *fakeKernel) {
		c := k.connect()
		c.setRoom(1000)
		c.send(get + "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
		k.pass(time.Second)
		c.take(-1)
		if got := c.received(); !strings.HasSuffix(got, "xHTTP/1.1 100 Continue\r\n\r\n") {
			t.Fatalf("after the answer: %q", got[max(0, len(got)-60):])
		}
		c.send("hello")
		if got := c.received(); !strings.HasPrefix(got, "HTTP/1.1 200") {
			t.Errorf("answer %q", clip(got))
		}
	})
}

// 100 Continue never comes before the answers to earlier requests.
func TestContinueBehindAnAnswer(t *testing.T) {
	inBubble(t, hello, nil, func(t *testing.T, k *fakeKernel) {
		c := k.connect()
		c.send(get + get + "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
		got := c.received()
		if strings.Count(got, "Hello, World!") != 2 || !strings.HasSuffix(got, "World!HTTP/1.1 100 Continue\r\n\r\n") {
			t.Errorf("got %q", got)
		}
	})
}

// As soon as the reactor can find a request that goes to the todo, nothing is lent
// in its name: the reactor would look into it while another place begins it.
func TestNothingIsLentForARequestThatGoesOn(t *testing.T) {
	var server *Server
	looked := 0
	change := func(o *Options) {
		o.MaxFastInline = 2 // the third one goes to the todo
		o.StreamRequest = func(r *http.Request) bool { return r.Method == http.MethodPost }
		unread := o.sockets.unread
		// Who announces a request with a body, and sees that the client has shut
		// down its side, asks how much of that is here.
		o.sockets.unread = func(fd int) int64 {
			looked++
			server.loans.Lock()
			defer server.loans.Unlock()
			server.loans.all(func(sc *scratch) {
				if x := sc.loan.slot.Load().Value.exchange.Load(); sc.loan.state.Load() == loanLent && x.response.scratch != sc {
					t.Errorf("output is lent in the name of %s, which goes to the todo", x.request.URL)
				}
			})
			return unread(fd)
		}
	}
	inBubble(t, hello, change, func(t *testing.T, k *fakeKernel) {
		server = k.Server
		c := k.connect()
		whole := post("hello")
		c.sendAndFinish(getPath("/1") + getPath("/2") + whole[:len(whole)-2])
		if got := c.received(); strings.Count(got, "HTTP/1.1 200") != 3 || looked == 0 {
			t.Errorf("looked %d times, received %q", looked, got)
		}
	})
}
