package page

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func counter(t testing.TB, p *Page, name string) *Counter {
	t.Helper()
	c, err := p.Counter(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCounters(t *testing.T) {
	p := newPage(t, 1)
	counter(t, p, "orders").Add(3)
	counter(t, p, "café.visits") // of no use so far
	longest := strings.Repeat("n", MaxNameBytes)
	counter(t, p, longest).Add(math.MaxUint64)
	counter(t, p, "orders").Add(4)
	if _, err := p.Limiter("login", 1, 1); err != nil {
		t.Fatal(err)
	}
	got := maps.Collect(p.Counters())
	want := map[string]uint64{"orders": 7, "café.visits": 0, longest: math.MaxUint64}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	var names []string
	for name := range p.Counters() {
		if names = append(names, name); len(names) == 2 {
			break
		}
	}
	if !slices.IsSorted(names) || len(names) != 2 {
		t.Errorf("the first two are %q", names)
	}
}

// TestCountersOutliveTheirPage: another mapping of the same memory, as the next
// program of a hot restart has it.
func TestCountersOutliveTheirPage(t *testing.T) {
	p := newPage(t, 2)
	counter(t, p, "orders").Add(5)
	next, err := Open(dup(t, p.FD()), testLayout)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	counter(t, next, "orders").Add(1)
	if got := counter(t, p, "orders").Value(); got != 6 {
		t.Errorf("%d, want 6", got)
	}
	if next.Slots() != 2 {
		t.Errorf("it has %d slots, want 2", next.Slots())
	}
}

func TestNamesRefused(t *testing.T) {
	p := newPage(t, 1)
	counter(t, p, "orders")
	if _, err := p.Limiter("login", 1, 1); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"":                       "must not be empty",
		strings.Repeat("n", 97):  "at most 96 bytes, this one 97",
		"a\nb":                   "without control characters",
		"\xff":                   "UTF-8",
		"login":                  `"login" is a limiter, and cannot be a counter as well`,
		strings.Repeat("n", 1e6): "at most 96 bytes, this one 1000000",
	} {
		if _, err := p.Counter(name); err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 400 {
			t.Errorf("Counter(%.20q): %v, want %q", name, err, want)
		}
	}
	for _, c := range []struct {
		name  string
		rate  float64
		burst int
		want  string
	}{
		{"orders", 1, 1, `"orders" is a counter, and cannot be a limiter as well`},
		{"l", 0, 1, "0 per second, want more than 0"},
		{"l", -1, 1, "-1 per second"},
		{"l", math.NaN(), 1, "NaN per second"},
		{"l", math.Inf(1), 1, "+Inf per second"},
		{"l", 2e6, 1, "2e+06 per second, want more than 0 and at most 1e+06"},
		{"l", 1, 0, "a burst of 0 allows nothing"},
		{"l", 1, math.MaxInt, "more than a year to fill up"},
		{"l", 1e-300, 1, "more than a year to fill up"},
		{"", 1, 1, "must not be empty"},
	} {
		if _, err := p.Limiter(c.name, c.rate, c.burst); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Limiter(%q, %v, %d): %v, want %q", c.name, c.rate, c.burst, err, c.want)
		}
	}
	if got := len(maps.Collect(p.Counters())); got != 1 {
		t.Errorf("there are %d counters, want 1: what was refused takes no room", got)
	}
}

func TestNamesFull(t *testing.T) {
	p := newPage(t, 1)
	for i := range MaxNames {
		counter(t, p, "name."+strconv.Itoa(i)).Add(uint64(i))
	}
	if _, err := p.Counter("one more"); !errors.Is(err, ErrNames) || !strings.Contains(err.Error(), `"one more"`) {
		t.Errorf("the name too many: %v", err)
	}
	for i := range MaxNames {
		if got := counter(t, p, "name."+strconv.Itoa(i)).Value(); got != uint64(i) {
			t.Fatalf("name.%d is %d", i, got)
		}
	}
}

// TestHashOf: the places of names are the same in every program.
func TestHashOf(t *testing.T) {
	if got, want := hashOf("orders"), uint64(0x125d9250be8b4c); got != want {
		t.Errorf("%#x, want %#x", got, want)
	}
}

// TestCollision: a name whose entry has been claimed by one of the same hash.
func TestCollision(t *testing.T) {
	p := newPage(t, 1)
	hash := hashOf("orders")
	e := p.entry(hash % MaxNames)
	e.hash.Store(hash)
	e.finish("impostor", kindCounter)
	counter(t, p, "orders").Add(1)
	counter(t, p, "orders").Add(1)
	if got := maps.Collect(p.Counters()); !maps.Equal(got, map[string]uint64{"impostor": 0, "orders": 2}) {
		t.Errorf("%v", got)
	}
}

// TestKilledWhileInserting: each state that an inserter can leave behind when
// it is killed. The next one who wants the name finishes it.
func TestKilledWhileInserting(t *testing.T) {
	const name = "orders.of.today"
	for words := range 3 {
		p := newPage(t, 1)
		other := newPage(t, 1)
		counter(t, other, name)
		hash := hashOf(name)
		whole := other.entry(hash % MaxNames)
		torn := p.entry(hash % MaxNames)
		torn.hash.Store(hash)
		for i := range words {
			torn.text[i].Store(whole.text[i].Load())
		}
		if got := maps.Collect(p.Counters()); len(got) != 0 {
			t.Errorf("%d words: half a name is shown: %v", words, got)
		}
		counter(t, p, name).Add(1)
		if got := maps.Collect(p.Counters()); !maps.Equal(got, map[string]uint64{name: 1}) {
			t.Errorf("%d words: %v", words, got)
		}
	}
}

// TestKillInserters kills processes with kill -9 while they insert names, sooner
// or later in that. What they leave behind serves others.
func TestKillInserters(t *testing.T) {
	kills := 12
	if testing.Short() {
		kills = 3
	}
	for kill := range kills {
		p := newPage(t, 1)
		a, b := startChild(t, "insert", p), startChild(t, "insert", p)
		a.line(t)
		b.line(t)
		insertNames(t, p, kill*MaxNames/kills)
		a.kill()
		b.kill()
		insertNames(t, p, MaxNames)
		got := maps.Collect(p.Counters())
		for i := range MaxNames {
			if name := "name." + strconv.Itoa(i); got[name] < 1 {
				t.Fatalf("%s: %d, want 1 at least", name, got[name])
			}
		}
		if len(got) != MaxNames {
			t.Errorf("%d names, want %d", len(got), MaxNames)
		}
		if _, err := p.Counter("one more"); !errors.Is(err, ErrNames) {
			t.Errorf("the name too many: %v", err)
		}
	}
}

func insertNames(t *testing.T, p *Page, count int) {
	t.Helper()
	for i := range count {
		counter(t, p, "name."+strconv.Itoa(i)).Add(1)
	}
}

// insertInChild inserts all names, from another one on in each process, and
// does so until it is killed.
func insertInChild(p *Page) error {
	os.Stdout.WriteString("inserting\n")
	for first := os.Getpid() * 100; ; first++ {
		for i := range MaxNames {
			c, err := p.Counter("name." + strconv.Itoa((first+i)%MaxNames))
			if err != nil {
				return err
			}
			c.Add(1)
		}
	}
}

// TestInsertAtOnce is for the race detector.
func TestInsertAtOnce(t *testing.T) {
	p := newPage(t, 1)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for i := range 200 {
				c, err := p.Counter(fmt.Sprint("name.", i))
				if err != nil {
					t.Error(err)
					return
				}
				c.Add(1)
				for range p.Counters() {
					break
				}
			}
		})
	}
	group.Wait()
	got := maps.Collect(p.Counters())
	for name, value := range got {
		if value != 4 {
			t.Errorf("%s: %d, want 4", name, value)
		}
	}
	if len(got) != 200 {
		t.Errorf("%d names, want 200", len(got))
	}
}

func limiter(t *testing.T, p *Page, perSecond float64, burst int) *Limiter {
	t.Helper()
	l, err := p.Limiter("limiter", perSecond, burst)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLimiter(t *testing.T) {
	l := limiter(t, newPage(t, 1), 10, 3)
	const start = int64(time.Hour)
	ms := int64(time.Millisecond)
	for i, c := range []struct {
		at   int64
		n    int
		want bool
	}{
		{0, 4, false}, // more than the burst
		{0, 0, true},
		{0, -5, true},
		{0, 2, true},
		{0, 2, false}, // one is left
		{0, 1, true},
		{0, 1, false},
		{99 * ms, 1, false}, // a token takes 100 ms
		{100 * ms, 1, true},
		{100 * ms, 1, false},
		{50 * ms, 1, false},    // another process' clock is a little behind
		{10_000 * ms, 3, true}, // no more than the burst, however long nobody came
		{10_000 * ms, 1, false},
	} {
		if got := l.allow(start+c.at, c.n); got != c.want {
			t.Errorf("%d: %d at %v: %t, want %t", i, c.n, time.Duration(c.at), got, c.want)
		}
	}
}

// TestLimiterNewRate: after a restart the new workers have another rate.
func TestLimiterNewRate(t *testing.T) {
	p := newPage(t, 1)
	old, next := limiter(t, p, 1, 10), limiter(t, p, 1000, 10)
	now := int64(time.Hour)
	if !old.allow(now, 10) || old.allow(now, 1) || next.allow(now, 1) {
		t.Error("the bucket is not empty for both")
	}
	// It is full again in ten seconds, or for the new rate 10 ms before that has
	// its first token 1 ms after.
	now += 10*int64(time.Second) - 10*int64(time.Millisecond)
	if next.allow(now, 1) || !next.allow(now+int64(time.Millisecond), 1) {
		t.Error("the new rate does not go on from where the bucket was")
	}
}

// TestLimiterInTwoProcesses: together they get the burst, no more.
func TestLimiterInTwoProcesses(t *testing.T) {
	p := newPage(t, 1)
	children := []*child{startChild(t, "limiter", p), startChild(t, "limiter", p)}
	for _, c := range children {
		c.line(t)
	}
	for _, c := range children {
		if _, err := io.WriteString(c.input, "go\n"); err != nil {
			t.Fatal(err)
		}
	}
	total := 0
	for _, c := range children {
		n, err := strconv.Atoi(c.line(t))
		if err != nil {
			t.Fatal(err)
		}
		total += n
		c.end(t)
	}
	if total != childBurst {
		t.Errorf("%d were allowed, want %d", total, childBurst)
	}
}

const childBurst = 50_000

func limitInChild(p *Page) error {
	l, err := p.Limiter("shared", 0.002, childBurst) // the next token comes in minutes
	if err != nil {
		return err
	}
	os.Stdout.WriteString("ready\n")
	if _, err := os.Stdin.Read(make([]byte, 3)); err != nil {
		return err
	}
	allowed := 0
	for range childBurst {
		if l.Allow() {
			allowed++
		}
	}
	fmt.Println(allowed)
	awaitEnd()
	return nil
}

func BenchmarkCounter(b *testing.B) {
	c := counter(b, newPage(b, 1), "orders")
	b.RunParallel(func(b *testing.PB) {
		for b.Next() {
			c.Add(1)
		}
	})
}

func BenchmarkLimiter(b *testing.B) {
	l, err := newPage(b, 1).Limiter("login", MaxPerSecond, 1000)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		l.Allow()
	}
}
