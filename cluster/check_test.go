package cluster

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/catamount-server/catamount/internal/page"
)

// testRoster makes a roster of words, one for each worker: "2o.b" is worker 2 of
// the old program, booted; n is the new program, s started, t terminating, and
// an r at the end marks it to be replaced. Workers are older the further to the
// left they stand.
func testRoster(t *testing.T, wanted int, workers string) *roster {
	t.Helper()
	p, err := page.Create(9, page.Layout{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	shared := &sharedPage{Page: p, fd: p.FD(), slots: make([]slotRecord, p.Slots())}
	r := &roster{
		wanted: wanted, culling: Youngest, target: &program{phase: 1, proven: true, page: shared},
		checkInterval: 5 * time.Second, workerTimeout: time.Minute, bootTimeout: time.Minute,
	}
	old := &program{phase: 0, proven: true, page: shared}
	for i, word := range strings.Fields(workers) {
		h := &WorkerHandle{PID: 100 + i, program: r.target, page: shared}
		var which, stage byte
		if _, err := fmt.Sscanf(word, "%d%c.%c", &h.Index, &which, &stage); err != nil {
			t.Fatal(word, err)
		}
		if which == 'o' {
			h.program, r.fallback = old, old
		}
		start := testTime.Add(time.Duration(i) * time.Second)
		h.enter(Started, start)
		if stage != 's' {
			h.enter(Booted, start)
		}
		if stage == 't' {
			h.enter(Terminating, start)
			h.deadline = start.Add(30 * time.Second)
		}
		if strings.HasSuffix(word, "r") {
			h.retire = "for a test"
		}
		r.handles = append(r.handles, h)
	}
	return r
}

var testTime = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestToSpawn(t *testing.T) {
	for _, c := range []struct {
		name    string
		wanted  int
		workers string
		change  func(*roster)
		want    string // index and phase of each
	}{
		{"first start", 3, "", func(r *roster) { r.target.proven = false }, "0/1 1/1 2/1"},
		{"one of the first has failed, others may boot", 3, "0n.s 2n.s", func(r *roster) { r.target.proven = false }, ""},
		{"one has booted: the failed one is tried again", 3, "0n.b 2n.s", nil, "1/1"},
		{"all there", 2, "0n.b 1n.b", nil, ""},
		{"one is gone", 2, "0n.b", nil, "1/1"},
		{"one leaves: its successor does not wait", 2, "0n.b 1n.t", nil, "2/1"},
		{"scaled up", 4, "0n.b 1n.b", nil, "2/1 3/1"},
		{"too many", 1, "0n.b 1n.b", nil, ""},
		{"restart: one more of the new", 2, "0o.b 1o.b", nil, "2/1"},
		{"restart: it is awaited", 2, "0o.b 1o.b 2n.s", nil, ""},
		{"restart: it serves, an old one is to go first", 2, "0o.b 1o.b 2n.b", nil, ""},
		{"restart: the old one is still leaving", 2, "0o.t 1o.b 2n.b", nil, ""},
		{"restart: the next", 2, "1o.b 2n.b", nil, "0/1"},
		{"restart: over", 2, "0n.b 2n.b", nil, ""},
		{"restart: an old one has crashed before the new program has proved good", 2, "1o.b 2n.s", func(r *roster) { r.wanted, r.target.proven = 3, false }, "0/0"},
		{"restart: the old program crashes again and again, the new one is tried meanwhile", 2, "1o.b", func(r *roster) {
			r.target.proven, r.target.page.slots[8] = false, slotRecord{3, testTime.Add(time.Hour), r.fallback}
		}, "7/1"},
		{"restart: it is being tried", 2, "1o.b 7n.s", func(r *roster) {
			r.wanted, r.target.proven, r.target.page.slots[8] = 3, false, slotRecord{3, testTime.Add(time.Hour), r.fallback}
		}, ""},
		{"restart: an old one has crashed after", 3, "1o.b 2n.b", nil, "0/1"},
		{"recycling", 2, "0n.b 1n.br", nil, "2/1"},
		{"recycling waits for a worker that boots", 2, "0n.s 1n.br", nil, ""},
		{"stopping", 2, "0n.t", func(r *roster) { r.stopping = true }, ""},
		{"no program yet", 2, "", func(r *roster) { r.target = nil }, ""},
		{"a crashed slot is not got around", 2, "0n.b", func(r *roster) { r.target.page.slots[7] = slotRecord{3, testTime.Add(time.Hour), r.target} }, ""},
		{"its back-off is over", 2, "0n.b", func(r *roster) { r.target.page.slots[7] = slotRecord{3, testTime, r.target} }, "7/1"},
		{"others are started meanwhile", 3, "0n.b", func(r *roster) { r.target.page.slots[7] = slotRecord{3, testTime.Add(time.Hour), r.target} }, "1/1"},
		{"another program has crashed there, which was given up", 2, "0n.b", func(r *roster) {
			for i := range r.target.page.slots {
				r.target.page.slots[i] = slotRecord{3, testTime.Add(time.Hour), &program{phase: 2}}
			}
		}, "1/1"},
		{"no free slot", 20, "0n.b 1n.b 2n.b 3n.b 4n.b 5n.b 6n.b 7n.b 8n.b", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := testRoster(t, c.wanted, c.workers)
			if c.change != nil {
				c.change(r)
			}
			orders, again := r.toSpawn(testTime)
			var got []string
			for _, o := range orders {
				got = append(got, fmt.Sprintf("%d/%d", o.index, o.program.phase))
			}
			if g := strings.Join(got, " "); g != c.want {
				t.Errorf("got %q, want %q", g, c.want)
			}
			if waits := strings.Contains(c.name, "got around") || strings.Contains(c.name, "meanwhile") || strings.Contains(c.name, "being tried"); waits != again.Equal(testTime.Add(time.Hour)) {
				t.Errorf("look again at %v", again)
			}
		})
	}
}

func TestToDrain(t *testing.T) {
	for _, c := range []struct {
		name    string
		wanted  int
		workers string
		culling Culling
		want    []int
	}{
		{"all wanted", 2, "0n.b 1n.b", Youngest, nil},
		{"too few", 2, "0n.b", Youngest, nil},
		{"the youngest", 2, "0n.b 1n.b 2n.b 3n.b", Youngest, []int{3, 2}},
		{"the oldest", 2, "0n.b 1n.b 2n.b 3n.b", Oldest, []int{0, 1}},
		{"one that does not serve yet goes first", 1, "0n.s 1n.b", Oldest, []int{0}},
		{"those that leave do not count", 1, "0n.t 1n.b", Youngest, nil},
		{"an old one, once its successor serves", 2, "1o.b 0o.b 2n.b", Youngest, []int{0}},
		{"not before", 2, "0o.b 1o.b 2n.s", Youngest, nil},
		{"scaled down during a restart: old ones go", 1, "0o.b 1o.b 2n.b", Youngest, []int{0, 1}},
		{"scaled down while the first new one boots", 1, "0o.b 1o.b 2n.s", Youngest, []int{0}},
		{"the one to be recycled", 2, "0n.b 1n.br 2n.b", Youngest, []int{1}},
		{"workers of a failed program that do not serve", 2, "0n.b 1n.b 2o.s", Youngest, []int{2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := testRoster(t, c.wanted, c.workers)
			r.culling = c.culling
			var got []int
			for _, h := range r.toDrain() {
				got = append(got, h.Index)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
			r.stopping = true
			if r.toDrain() != nil {
				t.Error("while stopping, all are told at once")
			}
		})
	}
}

func TestOverdue(t *testing.T) {
	at := func(seconds int) time.Time { return testTime.Add(time.Duration(seconds) * time.Second) }
	for _, c := range []struct {
		name   string
		worker string
		change func(*WorkerHandle)
		now    time.Time
		want   string
	}{
		{"alive", "0n.b", nil, at(59), ""},
		{"silent", "0n.b", nil, at(60), "dump no sign of life for 1m0s"},
		{"asked", "0n.b", func(h *WorkerHandle) { h.dumpedAt, h.why = at(60), "silence" }, at(64), ""},
		{"still silent", "0n.b", func(h *WorkerHandle) { h.dumpedAt, h.why = at(60), "silence" }, at(65), "kill silence"},
		{"killed already", "0n.b", func(h *WorkerHandle) { h.dumpedAt, h.killedAt = at(60), at(65) }, at(99), ""},
		{"boots", "0n.s", nil, at(59), ""},
		{"does not boot", "0n.s", nil, at(60), "dump it has not booted within 1m0s"},
		{"pings do not help one that does not boot", "0n.s", func(h *WorkerHandle) { h.checkin(at(59)) }, at(60), "dump it has not booted"},
		{"leaves", "0n.t", nil, at(29), ""},
		{"does not leave", "0n.t", nil, at(30), "dump it does not leave in time"},
		{"still does not", "0n.t", func(h *WorkerHandle) { h.dumpedAt, h.why = at(30), "slow" }, at(31), "kill slow"},
		{"has closed its pipe", "0n.b", func(h *WorkerHandle) { h.closedAt = at(1) }, at(1), ""},
		{"and lives on", "0n.b", func(h *WorkerHandle) { h.closedAt = at(1) }, at(2), "kill it has closed its pipe"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := testRoster(t, 1, c.worker)
			if c.change != nil {
				c.change(r.handles[0])
			}
			got := ""
			for _, v := range r.overdue(c.now) {
				got = "dump "
				if v.kill {
					got = "kill "
				}
				got += v.why
			}
			if !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
				t.Errorf("got %q, want %q", got, c.want)
			}
			// The next check comes in time for what is still to come.
			next := r.nextCheck(c.now)
			if next.After(c.now.Add(r.checkInterval)) {
				t.Errorf("the next check is %s later", next.Sub(c.now))
			}
			if c.want == "" && r.handles[0].killedAt.IsZero() {
				if v := r.overdue(next.Add(-1)); len(v) > 0 {
					t.Errorf("the next check, %s later, comes too late: %+v", next.Sub(c.now), v[0])
				}
			}
		})
	}
}

func TestSignOfLifeSaves(t *testing.T) {
	r := testRoster(t, 1, "0n.b")
	h := r.handles[0]
	h.dumpedAt, h.why = testTime.Add(60*time.Second), "silence"
	if !h.checkin(testTime.Add(61 * time.Second)) {
		t.Error("it was about to be killed")
	}
	if v := r.overdue(testTime.Add(66 * time.Second)); len(v) > 0 {
		t.Errorf("it gives signs of life again: %+v", v)
	}
}

func TestForgive(t *testing.T) {
	r := testRoster(t, 3, "0n.b 1n.s 2n.t")
	asleep := time.Hour
	now := testTime.Add(asleep + 10*time.Second)
	if len(r.overdue(now)) != 3 {
		t.Fatal("all should be overdue")
	}
	r.forgive(now, asleep)
	if v := r.overdue(now); len(v) > 0 {
		t.Errorf("%+v", v[0])
	}
	if v := r.overdue(now.Add(time.Minute)); len(v) != 3 {
		t.Errorf("%d are overdue a minute later, want 3", len(v))
	}
}

func TestToRetire(t *testing.T) {
	memory := func(pid int) int64 { return int64(pid) << 20 } // 100 MiB and more
	for _, c := range []struct {
		name    string
		workers string
		change  func(r *roster)
		want    string
	}{
		{"no thresholds", "0n.b 1n.b", nil, ""},
		{"requests", "0n.b 1n.b", func(r *roster) { r.handles[1].maxRequests = 10; r.handles[1].slot().Served.Store(10) }, "1 it has served 10 requests"},
		{"not yet", "0n.b 1n.b", func(r *roster) { r.handles[1].maxRequests = 10; r.handles[1].slot().Served.Store(9) }, ""},
		{"age", "0n.b 1n.b", func(r *roster) { r.handles[0].maxAge = time.Hour }, "0 it has served for 1h0m0s"},
		{"memory", "0n.b 1n.b", func(r *roster) { r.handles[0].maxMemory, r.handles[1].maxMemory = 101<<20, 101<<20 }, "1 it has 101 MiB"},
		{"one at a time", "0n.b 1n.br", func(r *roster) { r.handles[0].maxAge = time.Hour }, ""},
		{"not while one is missing", "0n.b", func(r *roster) { r.handles[0].maxAge = time.Hour }, ""},
		{"not while one leaves", "0n.b 1n.b 2n.t", func(r *roster) { r.handles[0].maxAge = time.Hour }, ""},
		{"not during a restart", "0n.b 1o.b", func(r *roster) { r.handles[0].maxAge = time.Hour }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := testRoster(t, 2, c.workers)
			if c.change != nil {
				c.change(r)
			}
			got := ""
			if h, why := r.toRetire(testTime.Add(time.Hour), memory); h != nil {
				got = fmt.Sprint(h.Index, " ", why)
			}
			if !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestBackOff: a worker that dies at once is started at most ten times in ten
// seconds, and less than twice a minute later on.
func TestBackOff(t *testing.T) {
	p, program := &sharedPage{slots: make([]slotRecord, 1)}, &program{}
	now, starts := testTime, 0
	for now.Before(testTime.Add(10 * time.Second)) {
		starts++
		p.crashed(0, program, now)
		now = p.slots[0].notBefore
	}
	if starts > 10 {
		t.Errorf("%d starts in 10 s", starts)
	}
	if last := backOff(1000); last != 30*time.Second {
		t.Errorf("it ends at %s", last)
	}
}
