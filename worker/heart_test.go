package worker

import (
	"fmt"
	"math"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/catamount-server/catamount/internal/page"
	"github.com/catamount-server/catamount/internal/proctitle"
)

// beating starts a heart whose messages can be read.
func beating(t *testing.T, ts *testServer, interval time.Duration) (lines func() string, h *heart) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	link := &Link{inheritance: Inheritance{Index: 0}, pipe: w, page: ts.options.Page, slot: ts.options.Slot, title: &proctitle.Title{}, masterGone: make(chan struct{})}
	h = newHeart(link, ts.Server, interval)
	t.Cleanup(h.stop)
	buffer := make([]byte, 4096)
	return func() string {
		_ = r.SetReadDeadline(time.Now().Add(patience))
		n, err := r.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		return string(buffer[:n])
	}, h
}

// The master hears nothing more of a worker whose reactor hangs, though its
// other goroutines live on.
func TestHeartStopsWithTheReactor(t *testing.T) {
	g := startTeam(t, 1, nil)
	lines, h := beating(t, g.list[0], 20*time.Millisecond)
	if line := lines(); !strings.HasPrefix(line, "p") {
		t.Errorf("message %q, want a ping", line)
	}
	release := g.list[0].holdReactor()
	// The beat that was asked for last may have been before that.
	slot := g.page.Slot(0)
	g.list[0].until("the heart waits for the reactor", func() bool { return !h.beaten.Load() })
	reactorAt, poolAt := slot.ReactorAt.Load(), slot.PoolAt.Load()
	<-time.After(200 * time.Millisecond) // ten pings that must not come
	if slot.ReactorAt.Load() != reactorAt || slot.PoolAt.Load() != poolAt {
		t.Error("the page says that the worker lives")
	}
	release()
	g.list[0].until("it goes on", func() bool { return slot.ReactorAt.Load() != reactorAt && slot.PoolAt.Load() != poolAt })
}

func TestDispatchHangs(t *testing.T) {
	release := make(chan struct{})
	g := startTeam(t, 1, func(http.ResponseWriter, *http.Request) { <-release }, func(o *Options) { o.MaxThreads = 1 })
	ts := g.list[0]
	var d dispatch
	for range 3 {
		if !d.works(ts.Server) {
			t.Error("a worker with nothing to do hangs")
		}
	}
	a, b := dialTCP(t, g.master.addr), dialTCP(t, g.master.addr)
	a.send(request("/", ""))
	ts.until("the place is taken", func() bool { return ts.pool.Stats().Busy == 1 })
	b.send(request("/", ""))
	ts.until("another waits", func() bool { return ts.pool.Stats().Busy == 2 })
	for range 3 { // the handler hangs, which is another matter
		if !d.works(ts.Server) {
			t.Error("a dispatcher without a free place hangs")
		}
	}
	close(release)
	a.answered(t, false)
	b.answered(t, false)
	// What a dispatcher that hangs looks like.
	d = dispatch{begun: ts.stats.requests(), waiting: true}
	if !d.works(ts.Server) {
		t.Error("an empty todo counts as one that is not served")
	}
}

// What can be read of a worker from the page is what it says itself.
func TestStatsInThePage(t *testing.T) {
	g := startTeam(t, 2, nil)
	client := dialTCP(t, g.master.addr)
	client.send(request("/a", "x"))
	client.answered(t, false)
	bad := dialTCP(t, g.master.addr)
	bad.send("nonsense\r\n\r\n")
	if r, err := http.ReadResponse(bad.reader, nil); err != nil || r.StatusCode != 400 {
		t.Fatalf("%v, %v", r, err)
	}
	var own, read Stats
	for i, ts := range g.list {
		_, h := beating(t, ts, time.Hour)
		ts.until("a beat", h.beaten.Load)
		ts.until("no request runs", func() bool { return ts.pool.Stats().Busy == 0 })
		own, read = Add(own, ts.Stats()), Add(read, ReadStats(g.page.Slot(i)))
	}
	if read.RequestsCount != 1 || read.Accepted != 2 || read.Connections["idle"] != 1 || read.MaxThreads != 512 || read.PoolCapacity != 512 || read.ReactorMax < 2 {
		t.Errorf("the page says %+v", read)
	}
	own.BytesOut, own.Running = read.BytesOut, read.Running // these move by themselves
	if a, b := fmt.Sprintf("%+v", own), fmt.Sprintf("%+v", read); a != b {
		t.Errorf("the workers say\n%s\nand the page\n%s", a, b)
	}
	// A successor in the slot goes on counting.
	if again := ReadStats(g.page.Slot(0)); again.Accepted+ReadStats(g.page.Slot(1)).Accepted != 2 {
		t.Errorf("counters have been set back: %+v", again)
	}
}

func TestAddDoesNotTouchItsArguments(t *testing.T) {
	a := Stats{Accepted: 1, Statuses: map[string]uint64{"2xx": 1}, QueueWait: []WaitBucket{{1, 1}}}
	b := Stats{Accepted: 2, Statuses: map[string]uint64{"2xx": 2, "4xx": 3}}
	sum := Add(Add(a, b), a)
	if sum.Accepted != 4 || sum.Statuses["2xx"] != 4 || sum.Statuses["4xx"] != 3 || sum.QueueWait[0].Count != 2 {
		t.Errorf("sum %+v", sum)
	}
	if a.Statuses["2xx"] != 1 || len(a.Statuses) != 1 || a.QueueWait[0].Count != 1 || b.Statuses["2xx"] != 2 {
		t.Errorf("arguments changed: %v, %v", a, b)
	}
}

func TestStatsLayout(t *testing.T) {
	layout := StatsLayout()
	if layout.StatsBytes > page.MaxStatsBytes || layout.StatsBytes < 1000 {
		t.Errorf("%d bytes of statistics, at most %d fit", layout.StatsBytes, page.MaxStatsBytes)
	}
	if again := StatsLayout(); again != layout || layout.Fingerprint == 0 {
		t.Errorf("%v and then %v", layout, again)
	}
}

func TestAccessRecords(t *testing.T) {
	records := make(chan AccessRecord, 8)
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/panic":
			panic(http.ErrAbortHandler)
		case "/gone":
			w.WriteHeader(http.StatusGone)
		}
		_, _ = w.Write([]byte("12345"))
	}, func(o *Options) { o.OnRequest = func(r *AccessRecord) { records <- *r } })
	for _, c := range []struct {
		request string
		want    AccessRecord
	}{
		{"GET /a?secret=1 HTTP/1.1\r\nHost: x\r\n\r\n", AccessRecord{Method: "GET", Path: "/a", Proto: "HTTP/1.1", Status: 200, Bytes: 5}},
		{"POST /gone HTTP/1.0\r\nContent-Length: 0\r\n\r\n", AccessRecord{Method: "POST", Path: "/gone", Proto: "HTTP/1.0", Status: 410, Bytes: 5}},
		{"GET /panic HTTP/1.1\r\nHost: x\r\n\r\n", AccessRecord{Method: "GET", Path: "/panic", Proto: "HTTP/1.1"}},
	} {
		client := ts.dial()
		client.send(c.request)
		got := waitFor(t, records)
		if got.Duration <= 0 || got.Queue < 0 || got.Queue > got.Duration {
			t.Errorf("queue %v, duration %v", got.Queue, got.Duration)
		}
		c.want.Peer, c.want.Queue, c.want.Duration = client.LocalAddr().String(), got.Queue, got.Duration
		if got != c.want {
			t.Errorf("record %+v, want %+v", got, c.want)
		}
	}
}

// The hook runs when nothing else does, and connections wait meanwhile.
func TestOutOfBand(t *testing.T) {
	var running atomic.Int32
	began, proceed, wait := make(chan struct{}, 8), make(chan struct{}), make(chan struct{})
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		running.Add(1)
		defer running.Add(-1)
		if r.URL.Path == "/wait" {
			<-wait
		}
	}, func(o *Options) {
		o.OutOfBand = func() {
			if n := running.Load(); n != 0 {
				t.Errorf("the hook runs beside %d requests", n)
			}
			began <- struct{}{}
			<-proceed
		}
	})
	slow, quick := ts.dial(), ts.dial()
	slow.send(request("/wait", ""))
	ts.until("it runs", func() bool { return running.Load() == 1 })
	quick.send(request("/", ""))
	quick.answered(t, false)
	ts.until("only one is left", func() bool { return ts.pool.Stats().Busy == 1 })
	select {
	case <-began:
		t.Fatal("the hook runs while a request does")
	default:
	}
	close(wait)
	slow.answered(t, false)
	waitFor(t, began)
	late := ts.dial()
	late.send(request("/", ""))
	ts.until("nothing is accepted", func() bool {
		armed := make(chan bool, 1)
		_ = ts.reactor.Do(func() { armed <- (*ts.gate.table.Load())[0].armed })
		return !<-armed
	})
	if n := ts.Stats().Accepted; n != 2 {
		t.Errorf("%d connections accepted while the hook runs", n)
	}
	var d dispatch
	if first, second := d.works(ts.Server), d.works(ts.Server); !first || second {
		t.Errorf("the hook hangs: alive %t at the first look, %t at the second", first, second)
	}
	close(proceed)
	late.answered(t, false)
	waitFor(t, began) // after that one again
	ts.until("it is alive again", func() bool { return d.works(ts.Server) })
}

func TestHeapFloorBesideALimit(t *testing.T) {
	t.Setenv("GOGC", "")
	old := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(old)
	for _, c := range []struct {
		limit  int64
		shared bool
		want   bool
	}{
		{math.MaxInt64, false, true},
		{1 << 30, false, false},
		{1 << 30, true, true},
		{64 << 20, true, false},
	} {
		debug.SetMemoryLimit(c.limit)
		if got := heapFloor(16<<20, c.shared) != nil; got != c.want {
			t.Errorf("limit %d, shared %t: a floor %t, want %t", c.limit, c.shared, got, c.want)
		}
	}
}
