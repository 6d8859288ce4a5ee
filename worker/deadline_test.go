package worker

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// onTime checks that something happened when it was due, or up to one tick of
// the reactor later.
func (k *fakeKernel) onTime(what string, at, start time.Time, due time.Duration) {
	k.t.Helper()
	if at.IsZero() {
		k.t.Fatalf("%s: never happened", what)
	}
	tick := min(max(k.options.Timeouts.tick(), time.Millisecond), 128*time.Millisecond)
	if took := at.Sub(start); took < due || took > due+tick {
		k.t.Fatalf("%s: after %v, want %v to %v", what, took, due, due+tick)
	}
}

// only leaves one deadline of the defaults, and lingering.
func only(set func(*Timeouts)) func(*Options) {
	return func(o *Options) {
		o.Timeouts = Timeouts{Linger: 2 * time.Second}
		set(&o.Timeouts)
	}
}

func TestFirstByteDeadline(t *testing.T) {
	inBubble(t, hello, only(func(t *Timeouts) { t.FirstByte = 30 * time.Second }), func(t *testing.T, k *fakeKernel) {
		start := time.Now()
		c := k.connect()
		k.pass(time.Minute)
		state := c.state()
		k.onTime("end of a connection without a byte", state.shutAt, start, 30*time.Second)
		if len(state.out) > 0 {
			t.Errorf("it was not silent: %q", state.out)
		}
		k.stop()
		if lines := k.logs.all(); len(lines) > 0 {
			t.Errorf("logged: %v", lines)
		}
	})
}

func TestFirstByteDeadlineEndsWithTheFirstByte(t *testing.T) {
	inBubble(t, hello, only(func(t *Timeouts) { t.FirstByte = 30 * time.Second }), func(t *testing.T, k *fakeKernel) {
		c := k.connect()
		k.pass(29 * time.Second)
		c.send("G")
		k.pass(time.Hour)
		c.send(get[1:])
		if got := c.received(); !strings.HasSuffix(got, "Hello, World!") {
			t.Errorf("answer %q", got)
		}
		// It has served a request: what counts from here is Idle, which is off.
		k.pass(time.Hour)
		if state := c.state(); !state.shutAt.IsZero() {
			t.Errorf("closed although no deadline is set")
		}
	})
}

// Empty lines before a request begin nothing: they must not hold a connection.
func TestEmptyLinesDoNotStretchFirstByte(t *testing.T) {
	inBubble(t, hello, only(func(t *Timeouts) { t.FirstByte, t.Head = 30*time.Second, 20*time.Second }), func(t *testing.T, k *fakeKernel) {
		start := time.Now()
		c := k.connect()
		k.pass(29 * time.Second)
		c.send("\r\n\r\n")
		k.pass(time.Minute)
		state := c.state()
		k.onTime("end", state.shutAt, start, 30*time.Second)
		if len(state.out) > 0 {
			t.Errorf("answered %q to nothing but empty lines", state.out)
		}
	})
}

func TestHeadDeadline(t *testing.T) {
	inBubble(t, hello, only(func(t *Timeouts) { t.Head = 20 * time.Second }), func(t *testing.T, k *fakeKernel) {
		c := k.connect()
		k.pass(time.Hour)
		start := time.Now()
		const bytes = "GET /a/long/path HTTP/1.1\r\nHost: h\r\nX: "
		for i := range len(bytes) { // one byte a second: no byte stretches it
			c.send(bytes[i : i+1])
			k.pass(time.Second)
		}
		k.want408(c, start, 20*time.Second)
		k.wantLogged408("head", 20, start, 20*time.Second)
	})
}

// The second request of a connection has a deadline of its own.
func TestHeadDeadlineOfALaterRequest(t *testing.T) {
	inBubble(t, hello, only(func(t *Timeouts) { t.Head, t.Idle = 20*time.Second, 75*time.Second }), func(t *testing.T, k *fakeKernel) {
		c := k.connect()
		c.send(get)
		c.received()
		k.pass(70 * time.Second)
		start := time.Now()
		c.send("GET / HT")
		k.pass(time.Minute)
		k.want408After(c, start, 20*time.Second)
		k.wantLogged408("head", 8, start, 20*time.Second)
	})
}

// The head of a pipelined request lies behind a whole one: the pool's
// goroutine finds it, not the reactor.
func TestHeadDeadlineOfAPipelinedRequest(t *testing.T) {
	inBubble(t, hello, only(func(t *Timeouts) { t.Head, t.Idle = 20*time.Second, 75*time.Second }), func(t *testing.T, k *fakeKernel) {
		c := k.connect()
		start := time.Now()
		c.send(get + "GET / HT")
		c.received()
		k.pass(time.Minute)
		k.want408After(c, start, 20*time.Second)
		k.wantLogged408("head", 8, start, 20*time.Second)
	})
}

func TestBodyIdleDeadline(t *testing.T) {
	inBubble(t, hello, only(func(t *Timeouts) { t.BodyIdle = 30 * time.Second }), func(t *testing.T, k *fakeKernel) {
		c := k.connect()
		c.send("POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n12345")
		for range 10 { // slower than any rate, but not idle
			k.pass(29 * time.Second)
			c.send("x")
		}
		start := time.Now()
		k.pass(time.Minute)
		k.want408(c, start, 30*time.Second)
		line := k.wantLogged408("body", 15, start, 10*29*time.Second+30*time.Second)
		if line.attrs["path"] != "/upload" || line.attrs["method"] != "POST" {
			t.Errorf("the line does not tell the request: %v", line.attrs)
		}
	})
}

func TestBodyMinimumRate(t *testing.T) {
	for _, framing := range []string{"Content-Length: 1000000", "Transfer-Encoding: chunked"} {
		t.Run(framing, func(t *testing.T) {
			change := only(func(t *Timeouts) { t.BodyMinRate, t.BodyGrace = 500, 20*time.Second })
			inBubble(t, hello, change, func(t *testing.T, k *fakeKernel) {
				c := k.connect()
				start := time.Now()
				c.send("POST / HTTP/1.1\r\nHost: h\r\n" + framing + "\r\n\r\n")
				// 8 bytes every 100 ms are 80 a second: at second 20 + d the client
				// must have sent 500 d bytes, which 1600 + 80 d are until d = 3.81.
				for range 300 {
					c.send("3\r\nabc\r\n")
					k.pass(100 * time.Millisecond)
					if state := c.state(); !state.answeredAt.IsZero() {
						break
					}
				}
				if at := c.state().answeredAt; at.IsZero() || at.Sub(start) < 23*time.Second || at.Sub(start) > 25*time.Second {
					t.Fatalf("answered after %v, want about 24 s", at.Sub(start))
				}
			})
		})
	}
}

func TestBodyAboveTheMinimumRate(t *testing.T) {
	change := only(func(t *Timeouts) { t.BodyMinRate, t.BodyGrace = 500, 20*time.Second })
	inBubble(t, hello, change, func(t *testing.T, k *fakeKernel) {
		c := k.connect()
		c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 60000\r\n\r\n")
		for range 120 { // exactly the rate, for two minutes
			k.pass(time.Second)
			c.send(strings.Repeat("x", 500))
		}
		if got := c.received(); !strings.HasPrefix(got, "HTTP/1.1 200") {
			t.Errorf("answer %q", got)
		}
	})
}

// The grace is whole however little has come.
func TestBodyGrace(t *testing.T) {
	change := only(func(t *Timeouts) { t.BodyMinRate, t.BodyGrace = 500, 20*time.Second })
	inBubble(t, hello, change, func(t *testing.T, k *fakeKernel) {
		c := k.connect()
		start := time.Now()
		c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 60000\r\n\r\n")
		k.pass(time.Minute)
		k.want408(c, start, 20*time.Second)
		k.wantLogged408("body", 0, start, 20*time.Second)
	})
}

func TestRequestDeadline(t *testing.T) {
	for _, test := range []struct {
		phase, first string
		bytes        int64
	}{
		{"head", "POST / HTTP/1.1\r\nHost:", 22},
		{"body", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nabc", 3},
	} {
		t.Run(test.phase, func(t *testing.T) {
			inBubble(t, hello, only(func(t *Timeouts) { t.Request = 50 * time.Second }), func(t *testing.T, k *fakeKernel) {
				c := k.connect()
				start := time.Now()
				c.send(test.first)
				for range 4 {
					k.pass(10 * time.Second)
					c.send("x")
				}
				k.pass(time.Minute)
				k.want408(c, start, 50*time.Second)
				k.wantLogged408(test.phase, test.bytes+4, start, 50*time.Second)
			})
		})
	}
}

// The clock of a request starts with its first byte, not with its connection
// or the end of its head.
func TestRequestDeadlineSpansHeadAndBody(t *testing.T) {
	inBubble(t, hello, only(func(t *Timeouts) { t.Request = 50 * time.Second }), func(t *testing.T, k *fakeKernel) {
		c := k.connect()
		k.pass(time.Hour)
		start := time.Now()
		c.send("POST / HTTP/1.1\r\n")
		k.pass(30 * time.Second)
		c.send("Host: h\r\nContent-Length: 100\r\n\r\nabc")
		k.pass(time.Minute)
		k.want408(c, start, 50*time.Second)
		k.wantLogged408("body", 3, start, 50*time.Second)
	})
}

func TestIdleDeadline(t *testing.T) {
	inBubble(t, hello, only(func(t *Timeouts) { t.Idle = 75 * time.Second }), func(t *testing.T, k *fakeKernel) {
		c := k.connect()
		for range 3 { // each request starts it anew
			k.pass(74 * time.Second)
			c.send(get)
			if got := c.received(); !strings.HasPrefix(got, "HTTP/1.1 200") {
				t.Fatalf("answer %q", got)
			}
		}
		start := time.Now()
		k.pass(2 * time.Minute)
		state := c.state()
		k.onTime("end of an idle connection", state.shutAt, start, 75*time.Second)
		if len(state.out) > 0 {
			t.Errorf("it was not quiet: %q", state.out)
		}
		if n := k.Stats().IdleClosed; n != 1 {
			t.Errorf("IdleClosed = %d, want 1", n)
		}
		k.stop()
		if lines := k.logs.all(); len(lines) > 0 {
			t.Errorf("logged: %v", lines)
		}
	})
}

// A request that is there when the time is over is served: its bytes and our
// deadline have crossed.
func TestIdleDeadlineLooksOnceMore(t *testing.T) {
	inBubble(t, hello, only(func(t *Timeouts) { t.Idle = 75 * time.Second }), func(t *testing.T, k *fakeKernel) {
		c := k.connect()
		c.send(get)
		c.received()
		c.put(get, false) // it lies there, and no event has told of it yet
		k.pass(76 * time.Second)
		if got := c.received(); !strings.HasPrefix(got, "HTTP/1.1 200") {
			t.Fatalf("answer %q to a request that was there in time", got)
		}
		if state := c.state(); !state.shutAt.IsZero() {
			t.Error("closed although it was served")
		}
		if n := k.Stats().IdleClosed; n != 0 {
			t.Errorf("IdleClosed = %d, want 0", n)
		}
		// And it is not forgotten: the next idle time counts.
		start := time.Now().Add(-time.Second)
		k.pass(2 * time.Minute)
		if shut := c.state().shutAt; shut.IsZero() || shut.Sub(start) > 77*time.Second {
			t.Errorf("after the late request: closed at %v", shut.Sub(start))
		}
	})
}

// The beginning of a request counts as one: it gets the time of a head.
func TestIdleDeadlineFindsPartOfARequest(t *testing.T) {
	inBubble(t, hello, only(func(t *Timeouts) { t.Idle, t.Head = 75*time.Second, 20*time.Second }), func(t *testing.T, k *fakeKernel) {
		c := k.connect()
		c.send(get)
		c.received()
		c.put(get[:10], false)
		k.pass(80 * time.Second)
		c.send(get[10:])
		if got := c.received(); !strings.HasPrefix(got, "HTTP/1.1 200") {
			t.Fatalf("answer %q", got)
		}
	})
}

func TestLingerDeadline(t *testing.T) {
	inBubble(t, hello, only(func(*Timeouts) {}), func(t *testing.T, k *fakeKernel) {
		c := k.connect()
		start := time.Now()
		c.send("NONSENSE\r\n\r\n")
		if got := c.received(); !strings.HasPrefix(got, "HTTP/1.1 400") {
			t.Fatalf("answer %q", got)
		}
		for range 30 { // what the client goes on to send does not stretch it
			k.pass(100 * time.Millisecond)
			c.send("more")
		}
		state := c.state()
		if state.shutAt != start {
			t.Errorf("our side was shut down at %v, want at once", state.shutAt)
		}
		k.onTime("close", state.closedAt, start, 2*time.Second)
	})
}

func TestLingerEndsWithTheClient(t *testing.T) {
	for _, test := range []struct{ name, last string }{{"alone", ""}, {"with its last bytes", "bytes"}} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, hello, only(func(*Timeouts) {}), func(t *testing.T, k *fakeKernel) {
				c := k.connect()
				c.send("NONSENSE\r\n\r\n")
				k.pass(time.Second)
				start := time.Now()
				c.sendAndFinish(test.last)
				k.pass(time.Minute)
				if closed := c.state().closedAt; closed.IsZero() || closed != start {
					t.Errorf("closed %v after the client, want at once", closed.Sub(start))
				}
			})
		})
	}
}

// want408 checks answer and end of a request that came too late.
func (k *fakeKernel) want408(c *fakeSocket, start time.Time, due time.Duration) {
	k.t.Helper()
	k.onTime("answer", c.state().answeredAt, start, due)
	k.want408After(c, start, due)
}

func (k *fakeKernel) want408After(c *fakeSocket, start time.Time, due time.Duration) {
	k.t.Helper()
	state := c.state()
	k.onTime("end", state.shutAt, start, due)
	if got := c.received(); !strings.HasPrefix(got, "HTTP/1.1 408 Request Timeout\r\n") || !strings.Contains(got, "\r\nConnection: close\r\n") {
		k.t.Errorf("answer %q", got)
	}
}

// wantLogged408 checks the one log line and the counter.
func (k *fakeKernel) wantLogged408(phase string, bytes int64, start time.Time, elapsed time.Duration) logRecord {
	k.t.Helper()
	if n := k.Stats().Timeouts[phase]; n != 1 {
		k.t.Errorf("Timeouts[%q] = %d, want 1", phase, n)
	}
	k.stop()
	lines := k.logs.all()
	if len(lines) != 1 || !strings.Contains(lines[0].message, "408") {
		k.t.Fatalf("log %v, want one line of a 408", lines)
	}
	a := lines[0].attrs
	if peer := fmt.Sprint(a["peer"]); !strings.HasPrefix(peer, "192.0.2.") || a["phase"] != phase || a["bytes"] != bytes {
		k.t.Errorf("line %v, want phase %s and %d bytes", a, phase, bytes)
	}
	if took, ok := a["elapsed"].(time.Duration); !ok || took < elapsed || took > elapsed+128*time.Millisecond {
		k.t.Errorf("elapsed %v, want %v", a["elapsed"], elapsed)
	}
	return lines[0]
}
