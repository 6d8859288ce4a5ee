package worker

import (
	"math"
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	const second = int64(time.Second)
	type step struct{ at, bytes, due int64 } // seconds, and after the bytes
	for name, steps := range map[string][]step{
		"nothing comes":                {{1, 0, 21}, {10, 0, 21}},
		"a trickle":                    {{1, 0, 21}, {5, 250, 21 + 0}, {10, 500, 22}},
		"at the rate":                  {{1, 0, 21}, {11, 5000, 31}, {21, 5000, 41}},
		"what is saved up has a limit": {{1, 0, 21}, {2, 1 << 40, 22}, {3, 0, 22}},
		"more than nanoseconds hold":   {{1, 0, 21}, {2, 1 << 50, 22}, {1000, 1 << 62, 1020}},
	} {
		t.Run(name, func(t *testing.T) {
			var p pace
			if p.deadline(500) != math.MaxInt64 {
				t.Error("a deadline before there is anything to wait for")
			}
			for i, s := range steps {
				p.bytes += s.bytes
				p.update(s.at*second, 500, 20*time.Second)
				if due := p.deadline(500) / second; due != s.due {
					t.Errorf("step %d: due at %d s, want %d", i, due, s.due)
				}
			}
			if p.deadline(0) != math.MaxInt64 {
				t.Error("a deadline without a rate")
			}
		})
	}
}

// A client that was fast and then stops is given the grace, not what it would
// take on average.
func TestFastThenStalled(t *testing.T) {
	rates := func(t *Timeouts) {
		t.BodyMinRate, t.BodyGrace = 500, 20*time.Second
		t.WriteMinRate, t.WriteGrace = 500, 20*time.Second
	}
	t.Run("body", func(t *testing.T) {
		inBubble(t, hello, only(rates), func(t *testing.T, k *fakeKernel) {
			c := k.connect()
			c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6000000\r\n\r\n")
			for range 5 {
				k.pass(time.Second)
				c.send(string(make([]byte, 1_000_000)))
			}
			start := time.Now()
			k.pass(time.Minute)
			k.want408(c, start, 20*time.Second)
		})
	})
	t.Run("answer", func(t *testing.T) {
		inBubble(t, writeBig, only(rates), func(t *testing.T, k *fakeKernel) {
			c := k.connect()
			c.setRoom(10_000)
			c.send(getPath("/big"))
			for range 5 {
				k.pass(time.Second)
				c.take(100_000)
			}
			start := time.Now()
			k.pass(time.Minute)
			k.onTime("end", c.state().closedAt, start, 20*time.Second)
			k.wantUndelivered("too_slow", "/big")
		})
	})
}
