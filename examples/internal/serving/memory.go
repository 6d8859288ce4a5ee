package serving

import (
	"runtime"
	"sync"
	"testing"
)

// Memory watches what the whole process takes, the test's client included.
type Memory struct {
	before runtime.MemStats

	mu             sync.Mutex
	mostHeap, most uint64
}

// WatchMemory starts from a heap without garbage.
func WatchMemory() *Memory {
	m := new(Memory)
	runtime.GC()
	runtime.ReadMemStats(&m.before)
	return m
}

// Look measures now: the heap as it is, garbage included, and all that was
// taken from the system.
func (m *Memory) Look() {
	var now runtime.MemStats
	runtime.ReadMemStats(&now)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mostHeap = max(m.mostHeap, now.HeapAlloc)
	m.most = max(m.most, now.Sys)
}

// Check fails the test when the most that Look has seen is more than so many
// bytes above the beginning.
func (m *Memory) Check(t testing.TB, limit uint64) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	heap, all := m.mostHeap-min(m.mostHeap, m.before.HeapAlloc), m.most-min(m.most, m.before.Sys)
	t.Logf("memory: heap at most %.1f MiB above the %.1f MiB of before, from the system %.1f MiB more",
		mebibytes(heap), mebibytes(m.before.HeapAlloc), mebibytes(all))
	if m.most == 0 {
		t.Error("nobody looked at the memory")
	}
	if heap > limit || all > limit {
		t.Errorf("more than %.1f MiB", mebibytes(limit))
	}
}

func mebibytes(bytes uint64) float64 { return float64(bytes) / (1 << 20) }
