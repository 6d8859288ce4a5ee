package page

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestRequests(t *testing.T) {
	s := newPage(t, 2).Slot(1)
	before := Now()
	s.Begin(0, "GET", "/a?token=secret")
	s.Begin(7, "POST", "/b")
	s.Begin(255, "PUT", "/c")
	s.Begin(256, "GET", "/no-such-place")
	s.Begin(-1, "GET", "/no-such-place")
	s.End(7)
	s.End(256)
	s.End(-1)
	got := s.Requests()
	for i := range got {
		if got[i].Since < before || got[i].Since > Now() {
			t.Errorf("%q since %d, which is not now", got[i].Text, got[i].Since)
		}
		got[i].Since = 0
	}
	if want := []Request{{Place: 0, Text: "GET /a"}, {Place: 255, Text: "PUT /c"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestRequestText(t *testing.T) {
	s := newPage(t, 1).Slot(0)
	long := strings.Repeat("x", 200)
	for _, c := range [][3]string{
		{"GET", "/", "GET /"},
		{"GET", "/?q=secret", "GET /"},
		{"GET", "?q=secret", "GET "},
		{"GET", "/é%20/b?x", "GET /é%20/b"},
		{"OPTIONS", "*", "OPTIONS "},
		{"CONNECT", "user:secret@host:443", "CONNECT "},
		{"GET", "http://user:secret@host/path?q=secret", "GET /path"},
		{"GET", "http://user:secret@host", "GET "},
		{"GET", "http://user:secret@host?q=a/b", "GET "},
		{"GET", "", "GET "},
		{"GET", "/" + long, "GET /" + long[:textBytes-5]},
		{"GET", "/" + long + "?secret", "GET /" + long[:textBytes-5]},
		{long, "/path", long[:textBytes]},
		{long[:textBytes-1], "/path", long[:textBytes-1] + " "},
		{"", "", " "},
	} {
		s.Begin(0, c[0], c[1])
		if got := s.Requests()[0].Text; got != c[2] {
			t.Errorf("%s %s: noted %q, want %q", c[0], c[1], got, c[2])
		}
		s.End(0)
	}
}

// TestRequestsOfGarbage: a length that nobody can have written.
func TestRequestsOfGarbage(t *testing.T) {
	s := newPage(t, 1).Slot(0)
	s.Begin(0, "GET", "/")
	s.inFlight[0].length = 1 << 31
	if got := s.Requests(); len(got) != 1 || len(got[0].Text) != textBytes {
		t.Errorf("%v", got)
	}
}

// TestRequestsOfTheDead: they are known after a kill -9.
func TestRequestsOfTheDead(t *testing.T) {
	p := newPage(t, 1)
	c := startChild(t, "serve", p)
	if got := c.line(t); got != "serving" {
		t.Fatal(got)
	}
	c.kill()
	now := Now()
	got := p.Slot(0).Requests()
	if len(got) != 1 || got[0].Text != "DELETE /child" || got[0].Place != 2 {
		t.Fatalf("%v", got)
	}
	if took := time.Duration(now - got[0].Since); took < 0 || took > time.Minute {
		t.Errorf("it was serving for %v: the clocks of the processes differ", took)
	}
}

func serveInChild(p *Page) error {
	s := p.Slot(0)
	s.Begin(1, "GET", "/done")
	s.Begin(2, "DELETE", "/child?secret")
	s.End(1)
	os.Stdout.WriteString("serving\n")
	awaitEnd()
	return nil
}

func TestNow(t *testing.T) {
	before := monotonic()
	now := Now()
	after := monotonic()
	if now < before-int64(time.Millisecond) || now > after+int64(time.Millisecond) {
		t.Errorf("Now is %d, the kernel's clock from %d to %d", now, before, after)
	}
	synctest.Test(t, func(t *testing.T) {
		before := Now()
		time.Sleep(time.Hour)
		if took := time.Duration(Now() - before); took != time.Hour {
			t.Errorf("an hour of the bubble's takes %v", took)
		}
		l, err := newPage(t, 1).Limiter("bubble", 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		if first, second := l.Allow(), l.Allow(); !first || second {
			t.Errorf("the first is allowed: %t, the second: %t", first, second)
		}
		time.Sleep(time.Second)
		if !l.Allow() {
			t.Error("the token of a second later is not there")
		}
	})
}

func TestBeginAllocatesNothing(t *testing.T) {
	s := newPage(t, 1).Slot(0)
	if allocs := testing.AllocsPerRun(100, func() {
		s.Begin(5, "GET", "/path/to/somewhere?query")
		s.End(5)
	}); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func BenchmarkBeginEnd(b *testing.B) {
	s := newPage(b, 1).Slot(0)
	b.ReportAllocs()
	for b.Loop() {
		s.Begin(5, "GET", "/path/to/somewhere?query")
		s.End(5)
	}
}
