package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/catamount-server/catamount"
)

// snapshot is what the server's process knows about itself.
type snapshot struct {
	Failure string `json:"failure,omitempty"` // of the command

	Own         int             `json:"own"`         // goroutines before there was a server
	Goroutines  map[string]int  `json:"goroutines"`  // by what they run and what started them, without those that rest
	Resting     int             `json:"resting"`     // goroutines of the pool without a task
	Descriptors map[string]int  `json:"descriptors"` // open ones, by kind
	BodyFiles   []string        `json:"body_files"`  // in the directory of bodies and answers, or open and unnamed
	Heap        uint64          `json:"heap"`        // bytes of the heap in use
	Live        uint64          `json:"live"`        // bytes of them in objects
	RSS         uint64          `json:"rss"`         // bytes
	Stats       catamount.Stats `json:"stats"`
	App         appCounts       `json:"app"`
	Stall       time.Duration   `json:"stall"`   // the longest time without a processor
	Reactor     time.Duration   `json:"reactor"` // the longest time that the reactor let a question wait
	Log         map[string]int  `json:"log"`
}

func total[N int | uint64](counts map[string]N) (sum N) {
	for _, n := range counts {
		sum += n
	}
	return sum
}

// self is what a snapshot is taken of.
type self struct {
	server *catamount.Server
	app    *app
	log    *lineCounter
	bodies string
	own    int
	watch  *watch
	// slowest is the reactor's slowest answer, in nanoseconds.
	slowest atomic.Int64
}

// probe asks the server for its figures, which the reactor has to answer.
func (s *self) probe() {
	began := time.Now()
	s.server.Stats()
	if took := int64(time.Since(began)); took > s.slowest.Load() {
		s.slowest.Store(took) // only the watch stores
	}
}

func (s *self) look(collect bool) (now snapshot, err error) {
	if collect {
		// Twice: what pools hold survives the first collection.
		runtime.GC()
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	now = snapshot{Heap: m.HeapInuse, Live: m.HeapAlloc, Own: s.own, Stats: s.server.Stats(), App: s.app.counts()}
	_, now.Stall = s.watch.sum()
	now.Reactor = time.Duration(s.slowest.Load())
	s.log.mu.Lock()
	now.Log = maps.Clone(s.log.lines)
	s.log.mu.Unlock()
	now.Goroutines, now.Resting = goroutines()
	var files, descriptors error
	now.Descriptors, now.BodyFiles, descriptors = openDescriptors(s.bodies)
	now.RSS, err = residentBytes()
	entries, files := os.ReadDir(s.bodies)
	for _, entry := range entries {
		now.BodyFiles = append(now.BodyFiles, filepath.Join(s.bodies, entry.Name()))
	}
	return now, errors.Join(err, files, descriptors)
}

// goroutines groups all goroutines by the function that they run and by what
// started them. Those that rest in the pool are counted apart: how many
// there are depends on what was needed in the last half minute.
func goroutines() (groups map[string]int, resting int) {
	text := make([]byte, 64<<10)
	for {
		n := runtime.Stack(text, true)
		if n < len(text) {
			text = text[:n]
			break
		}
		text = make([]byte, 2*len(text))
	}
	groups = map[string]int{}
	for stack := range bytes.SplitSeq(text, []byte("\n\n")) {
		if isResting(string(stack)) {
			resting++
		} else {
			groups[groupOf(string(stack))]++
		}
	}
	return groups, resting
}

// isResting: one of the goroutines that ants keeps, with no frame of the thread
// pool on its stack, has no task.
func isResting(stack string) bool {
	_, by, _ := strings.Cut(stack, "created by ")
	return strings.HasPrefix(by, "github.com/panjf2000/ants/") && strings.Contains(by, "Worker") && !strings.Contains(stack, "catamount/threadpool.")
}

func groupOf(stack string) string {
	function, by := "", "the runtime"
	for line := range strings.Lines(stack) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "created by "); ok {
			by, _, _ = strings.Cut(name, " in goroutine")
		} else if i := strings.LastIndexByte(line, '('); i > 0 && !strings.HasPrefix(line, "/") {
			function = line[:i] // the last one is the outermost
		}
	}
	return function + ", started by " + by
}

// openDescriptors groups the process's descriptors by what they are, and lists
// those that are files in the directory of bodies and answers: these have no
// name.
func openDescriptors(bodies string) (kinds map[string]int, files []string, err error) {
	const directory = "/proc/self/fd"
	entries, err := os.ReadDir(directory)
	if err != nil {
		return nil, nil, err
	}
	kinds = map[string]int{}
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join(directory, entry.Name()))
		if err != nil {
			continue // that of the directory itself, or closed meanwhile
		}
		if strings.HasPrefix(target, bodies+"/") {
			files = append(files, target)
			target = "an unnamed file of the server's"
		}
		kind, _, _ := strings.Cut(target, ":[") // socket:[12345]
		kinds[kind]++
	}
	return kinds, files, nil
}

func residentBytes() (uint64, error) {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text)) // proc_pid_statm(5): size resident ...
	if len(fields) < 2 {
		return 0, fmt.Errorf("statm: %q", text)
	}
	pages, err := strconv.ParseUint(fields[1], 10, 64)
	return pages * uint64(os.Getpagesize()), err
}
