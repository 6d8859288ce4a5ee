package page

import (
	"errors"
	"fmt"
	"hash/fnv"
	"iter"
	"maps"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"
)

const (
	// MaxNames bounds how many counters and limiters there can be.
	MaxNames = 1024
	// MaxNameBytes bounds the length of a name.
	MaxNameBytes = 96

	nameBytes = int(unsafe.Sizeof(entry{}))
)

// kind is what a name stands for.
type kind uint64

const (
	kindCounter kind = 1 + iota
	kindLimiter
)

func (k kind) String() string {
	switch k {
	case kindCounter:
		return "counter"
	case kindLimiter:
		return "limiter"
	}
	return fmt.Sprintf("thing of kind %d", uint64(k))
}

// entry is a name of the application's and its word. The table of them is
// hashed, with the next free entry for names that fall on the same one; nothing
// is ever taken out.
//
//	free → claimed (hash) → whole (state)
//
// An entry is claimed for a name by a single CompareAndSwap of its hash, and
// whoever wants that name may write the rest, more than one at once: all write
// the same. So there is nothing to wait for when one of them is killed halfway.
type entry struct {
	hash  atomic.Uint64 // of the name, 0: free
	state atomic.Uint64 // kind and length of the name, 0: not whole yet
	text  [MaxNameBytes / 8]atomic.Uint64
	word  atomic.Uint64
	_     uint64
}

// ErrNames: the page has no room for another name.
var ErrNames = fmt.Errorf("page: no room for more than %d names", MaxNames)

// word finds the word behind a name, or makes it.
func (p *Page) word(name string, want kind) (*atomic.Uint64, error) {
	if err := checkName(name); err != nil {
		return nil, fmt.Errorf("page: %s %.120q: %w", want, name, err)
	}
	hash := hashOf(name)
	for i := range uint64(MaxNames) {
		e := p.entry((hash + i) % MaxNames)
		if e.hash.Load() == 0 {
			e.hash.CompareAndSwap(0, hash)
		}
		if e.hash.Load() != hash {
			continue
		}
		e.finish(name, want)
		switch found, text := e.read(); {
		case text != name:
			// Another name of the same hash has the entry.
		case found != want:
			return nil, fmt.Errorf("page: %q is a %s, and cannot be a %s as well", name, found, want)
		default:
			return &e.word, nil
		}
	}
	return nil, fmt.Errorf("%w: %q", ErrNames, name)
}

func (p *Page) entry(index uint64) *entry {
	return (*entry)(unsafe.Pointer(&p.memory[namesAt+int(index)*nameBytes]))
}

// finish writes the name, unless somebody has done so.
func (e *entry) finish(name string, k kind) {
	if e.state.Load() != 0 {
		return
	}
	var words [len(e.text)]uint64
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&words)), MaxNameBytes), name)
	for i, word := range words {
		e.text[i].Store(word)
	}
	e.state.CompareAndSwap(0, uint64(k)<<32|uint64(len(name)))
}

// read returns 0 for an entry that is not whole.
func (e *entry) read() (kind, string) {
	state := e.state.Load()
	if state == 0 {
		return 0, ""
	}
	var words [len(e.text)]uint64
	for i := range words {
		words[i] = e.text[i].Load()
	}
	text := unsafe.Slice((*byte)(unsafe.Pointer(&words)), MaxNameBytes)
	return kind(state >> 32), string(text[:min(state&0xffffffff, MaxNameBytes)])
}

// hashOf must not change: other programs use the same page.
func hashOf(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	return max(h.Sum64(), 1)
}

func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("a name must not be empty")
	case len(name) > MaxNameBytes:
		return fmt.Errorf("a name has at most %d bytes, this one %d", MaxNameBytes, len(name))
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == '�' }):
		return errors.New("a name must be UTF-8 without control characters")
	}
	return nil
}

// Counter is a number that all processes add to. It never goes back.
type Counter struct{ word *atomic.Uint64 }

// Counter returns the counter with that name, the same one in all processes and
// for as long as the page lives: it goes on when workers, or all processes in
// turn, are replaced. A name has up to MaxNameBytes bytes; when there are
// already MaxNames the error is ErrNames. Nothing takes a name away again, so
// names must not be made of what clients send.
func (p *Page) Counter(name string) (*Counter, error) {
	word, err := p.word(name, kindCounter)
	if err != nil {
		return nil, err
	}
	return &Counter{word}, nil
}

// Add counts n more. What is added is there for all, and not lost when this
// process dies the next moment.
func (c *Counter) Add(n uint64) { c.word.Add(n) }

// Value is what all processes have added so far.
func (c *Counter) Value() uint64 { return c.word.Load() }

// Counters are the application's counters and their values, sorted by name.
func (p *Page) Counters() iter.Seq2[string, uint64] {
	return func(yield func(string, uint64) bool) {
		values := make(map[string]uint64)
		for i := range uint64(MaxNames) {
			e := p.entry(i)
			if k, name := e.read(); k == kindCounter {
				values[name] = e.word.Load()
			}
		}
		for _, name := range slices.Sorted(maps.Keys(values)) {
			if !yield(name, values[name]) {
				return
			}
		}
	}
}

// Limiter is a token bucket that all processes share: it holds up to burst
// tokens, is full at first, gets perSecond new ones in each second, and what is
// allowed takes tokens out at once in all processes.
type Limiter struct {
	word     *atomic.Uint64 // on the clock of Now: when the bucket will be full again
	interval int64          // nanoseconds for a token
	burst    int
}

// MaxPerSecond bounds a limiter's rate: above, a token's time is rounded to
// nanoseconds too coarsely.
const MaxPerSecond = 1e6

// maxFill bounds the time in which an empty bucket becomes full.
const maxFill = 366 * 24 * time.Hour

// Limiter returns the limiter with that name, the same one in all processes. The
// rate, more than 0 and at most MaxPerSecond, and the burst, at least 1, are
// this caller's: after a restart with another rate, the new workers go by
// theirs, on the same bucket. A bucket that takes more than a year to fill is
// refused. Names are those of Counter, and as few.
func (p *Page) Limiter(name string, perSecond float64, burst int) (*Limiter, error) {
	if !(perSecond > 0 && perSecond <= MaxPerSecond) {
		return nil, fmt.Errorf("page: limiter %.120q: %v per second, want more than 0 and at most %v", name, perSecond, MaxPerSecond)
	}
	if burst < 1 {
		return nil, fmt.Errorf("page: limiter %.120q: a burst of %d allows nothing, want 1 at least", name, burst)
	}
	interval := math.Round(float64(time.Second) / perSecond)
	if interval*float64(burst) > float64(maxFill) {
		return nil, fmt.Errorf("page: limiter %.120q: %d at %v per second take more than a year to fill up", name, burst, perSecond)
	}
	word, err := p.word(name, kindLimiter)
	if err != nil {
		return nil, err
	}
	return &Limiter{word, int64(interval), burst}, nil
}

// Allow takes a token, or reports false when there is none.
func (l *Limiter) Allow() bool { return l.AllowN(1) }

// AllowN takes n tokens, or none and reports false when there are fewer; more
// than the burst there never are. Fewer than one are always allowed.
func (l *Limiter) AllowN(n int) bool { return l.allow(Now(), n) }

func (l *Limiter) allow(now int64, n int) bool {
	if n < 1 {
		return true
	}
	if n > l.burst {
		return false
	}
	for {
		old := l.word.Load()
		full := now
		if old != 0 { // the clock may be negative in a synctest bubble
			full = max(full, int64(old))
		}
		full += int64(n) * l.interval
		if full-now > int64(l.burst)*l.interval {
			return false
		}
		if l.word.CompareAndSwap(old, uint64(full)) {
			return true
		}
	}
}
