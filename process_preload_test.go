package catamount_test

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/catamount-server/catamount"
)

// preloadBulk shares so many MiB.
func preloadBulk(p *catamount.Preloader, mebibytes int) error {
	if mebibytes == 0 {
		return nil
	}
	w, err := p.Create("bulk")
	if err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(i * i)
	}
	for range mebibytes {
		if _, err := w.Write(block); err != nil {
			return err
		}
	}
	return w.Close()
}

// bulk is what /bulk answers: a worker reads everything when it is first asked,
// and for /bulk?again.
type bulk struct {
	PID, Bytes int
	Sum        uint32
}

// handleBulk serves what preloadBulk has shared: /bulk reads it, and /scribble
// writes to it.
func handleBulk(mux *http.ServeMux, w *catamount.Worker) error {
	if !slices.Contains(w.Preloaded().Names(), "bulk") {
		return nil
	}
	data, err := w.Preloaded().Bytes("bulk")
	if err != nil {
		return err
	}
	read := func() bulk { return bulk{os.Getpid(), len(data), crc32.ChecksumIEEE(data)} }
	once := sync.OnceValue(read)
	mux.HandleFunc("/bulk", func(rw http.ResponseWriter, r *http.Request) {
		answer := once()
		if r.URL.RawQuery == "again" {
			answer = read()
		}
		_ = json.NewEncoder(rw).Encode(answer)
	})
	mux.HandleFunc("/scribble", func(http.ResponseWriter, *http.Request) { data[0]++ })
	return nil
}

// TestPreloadedMemory: workers with much to share pay for it once, have it at
// once, and cannot change it.
func TestPreloadedMemory(t *testing.T) {
	const workers = 4
	mebibytes := 256
	if testing.Short() {
		mebibytes = 32
	}
	m := newDeployment(t).start(appConfig{Config: catamount.Config{Workers: workers}, Preload: true, PreloadMiB: mebibytes})
	first := m.askAllForBulk(workers)
	if first.Bytes != mebibytes<<20 {
		t.Fatalf("the workers have %d bytes", first.Bytes)
	}

	total := 0
	processes := append(m.children(), m.Process.Pid)
	for _, pid := range processes {
		total += pssOf(t, pid)
	}
	most := mebibytes<<20 + len(processes)*15<<20
	t.Logf("%d MiB for %d workers and a master: %.1f MiB PSS in all", mebibytes, workers, float64(total)/(1<<20))
	if total > most && !raceDetector {
		t.Errorf("%d MiB PSS in all, want %d at most", total>>20, most>>20)
	}
	if total < mebibytes<<20 {
		t.Errorf("%d MiB PSS in all: not everything has been read", total>>20)
	}

	var boots []time.Duration
	for _, pid := range m.children() {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		m.await("the worker is dead", itoa(pid))
		boots = append(boots, bootTime(t, m.await(`"worker booted"`)))
	}
	slices.Sort(boots)
	t.Logf("workers that replace others boot within %v", boots)
	if median := boots[len(boots)/2]; median > 50*time.Millisecond && !raceDetector {
		t.Errorf("they need %v, want 50 ms at most", boots)
	}

	if _, err := http.Get("http://" + m.addr + "/scribble"); err == nil {
		t.Error("a worker writes to shared memory and lives to answer")
	}
	m.await("unexpected fault address")
	m.await(`"worker booted"`)
	var after bulk
	if err := json.Unmarshal([]byte(m.ask("/bulk?again")), &after); err != nil || after.Sum != first.Sum {
		t.Errorf("the workers read something else than before: %+v (%v), %+v", after, err, first)
	}
}

// askAllForBulk asks until all workers have answered, and all the same.
func (m *master) askAllForBulk(workers int) (answer bulk) {
	m.t.Helper()
	seen := map[int]uint32{}
	poll(m.t, "all workers have answered", func() bool {
		if err := json.Unmarshal([]byte(m.ask("/bulk")), &answer); err != nil {
			m.t.Fatal(err)
		}
		seen[answer.PID] = answer.Sum
		return len(seen) == workers
	})
	for _, sum := range seen {
		if sum != answer.Sum {
			m.t.Fatalf("they have read different things: %v", seen)
		}
	}
	return answer
}

// bootTime is what the log says of a worker's boot.
func bootTime(t *testing.T, line string) time.Duration {
	t.Helper()
	var record struct{ After time.Duration }
	if err := json.Unmarshal([]byte(line), &record); err != nil || record.After == 0 {
		t.Fatalf("%s: %v", line, err)
	}
	return record.After
}

// pssOf is the proportional set size of a process, in bytes: of each page its
// share.
func pssOf(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\nPss:")
	var kilobytes int
	if _, err := fmt.Sscan(rest, &kilobytes); err != nil {
		t.Fatalf("no Pss in %s", text)
	}
	return kilobytes << 10
}
