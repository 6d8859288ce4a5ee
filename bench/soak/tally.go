package main

import (
	"fmt"
	"io"
	"math/bits"
	"sync"
	"time"
)

// tally is what became of the visits of a kind.
type tally struct {
	verbose io.Writer // nil: not told at once

	mu                      sync.Mutex
	done, refused, cutShort int
	unexpected              int
	lost                    int // of them, requests without their answer
	excused                 int // what would have been unexpected
	first                   []string
	took                    [40]int // answers by the logarithm of their microseconds
	slowest                 time.Duration
}

// firstOnes is how many unexpected events a report describes.
const firstOnes = 5

// answered counts an answer that was right, and how long it took, where that
// tells something.
func (t *tally) answered(took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done++
	t.slowest = max(t.slowest, took)
	if took > 0 {
		t.took[min(bits.Len64(uint64(took.Microseconds())), len(t.took)-1)]++
	}
}

func (t *tally) refusedAsExpected(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused += n
}

// unfinished counts a visit that the end of the traffic cut short.
func (t *tally) unfinished() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cutShort++
}

// note counts something unexpected: so many requests lost, or something else.
// excused says that this process had stalled, so that it proves nothing.
func (t *tally) note(lost int, excused bool, text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	text = time.Now().Format("15:04:05.000 ") + text
	if excused {
		text += " (excused: this process had stalled)"
		t.excused += max(lost, 1)
	} else {
		t.lost += lost
		t.unexpected += max(lost, 1)
		if len(t.first) < firstOnes {
			t.first = append(t.first, text)
		}
	}
	if t.verbose != nil {
		fmt.Fprintln(t.verbose, text)
	}
}

// times returns below which time 99 % of the answers came, and the slowest.
func (t *tally) times() (percentile, slowest string) {
	counted := 0
	for _, n := range t.took {
		counted += n
	}
	if counted == 0 {
		return "", ""
	}
	below, sum := time.Duration(0), 0
	for i, n := range t.took {
		if sum += n; sum*100 >= counted*99 {
			below = time.Duration(1<<i) * time.Microsecond
			break
		}
	}
	return below.Round(time.Millisecond).String(), t.slowest.Round(time.Millisecond).String()
}

// synchronized lets several goroutines write lines.
type synchronized struct {
	mu  sync.Mutex
	out io.Writer
}

func (s *synchronized) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(p)
}
