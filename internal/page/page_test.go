package page

import (
	"errors"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func newPage(t testing.TB, slots int) *Page {
	t.Helper()
	p, err := Create(slots, testLayout)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func dup(t *testing.T, fd int) int {
	t.Helper()
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestAlignment(t *testing.T) {
	p := newPage(t, 3)
	const line = 128 // two cache lines, which processors fetch together
	for name, at := range map[string]uintptr{
		"Global":       uintptr(unsafe.Pointer(p.Global())),
		"first name":   uintptr(unsafe.Pointer(p.entry(0))),
		"second name":  uintptr(unsafe.Pointer(p.entry(1))),
		"slot 0":       uintptr(unsafe.Pointer(p.Slot(0))),
		"slot 2":       uintptr(unsafe.Pointer(p.Slot(2))),
		"State":        uintptr(unsafe.Pointer(&p.Slot(1).State)),
		"first place":  uintptr(unsafe.Pointer(&p.Slot(1).inFlight[0])),
		"second place": uintptr(unsafe.Pointer(&p.Slot(1).inFlight[1])),
		"Stats":        uintptr(p.Slot(1).Stats()),
	} {
		if at%line != 0 {
			t.Errorf("%s lies %d bytes after a multiple of %d", name, at%line, line)
		}
	}
	if end := globalAt + unsafe.Sizeof(Global{}); end > namesAt {
		t.Errorf("Global ends at %d, the names begin at %d", end, namesAt)
	}
	if size := unsafe.Sizeof(header{}); size > globalAt {
		t.Errorf("the header has %d bytes, Global begins at %d", size, globalAt)
	}
}

func TestSlotsApart(t *testing.T) {
	p := newPage(t, 2)
	for i := range 2 {
		s := p.Slot(i)
		stats := unsafe.Slice((*byte)(s.Stats()), MaxStatsBytes)
		for j := range stats {
			stats[j] = byte(1 + i)
		}
		s.PID.Store(int64(100 + i))
		s.Begin(InFlightPlaces-1, "GET", "/last")
	}
	for i := range 2 {
		s := p.Slot(i)
		stats := unsafe.Slice((*byte)(s.Stats()), MaxStatsBytes)
		if stats[0] != byte(1+i) || stats[MaxStatsBytes-1] != byte(1+i) || s.PID.Load() != int64(100+i) {
			t.Errorf("slot %d: somebody else has written here: %d…%d, pid %d", i, stats[0], stats[MaxStatsBytes-1], s.PID.Load())
		}
	}
}

func TestReset(t *testing.T) {
	p := newPage(t, 1)
	s := p.Slot(0)
	counted := (*atomic.Uint64)(s.Stats())
	counted.Store(42)
	s.State.Store(uint32(Draining))
	for _, word := range []*atomic.Int64{&s.PID, &s.Deadline, &s.Busy, &s.Places, &s.Connections, &s.ReactorAt, &s.PoolAt, &s.Booted} {
		word.Store(7)
	}
	s.Phase.Store(7)
	s.Served.Store(7)
	s.Command.Store(uint32(Finish))
	s.Begin(3, "GET", "/")
	s.Reset()
	// All words before the notes, which are what Reset is about.
	for i, b := range unsafe.Slice((*byte)(unsafe.Pointer(s)), unsafe.Offsetof(s.inFlight)) {
		if b != 0 {
			t.Fatalf("byte %d of the slot is %d", i, b)
		}
	}
	if got := s.Requests(); len(got) != 0 {
		t.Errorf("there are still %v", got)
	}
	if counted.Load() != 42 {
		t.Errorf("what was counted is %d now", counted.Load())
	}
}

func TestCreateRefuses(t *testing.T) {
	for _, c := range []struct {
		slots, stats int
		want         string
	}{
		{0, 0, "0 slots, want 1 to 256"},
		{MaxSlots + 1, 0, "257 slots, want 1 to 256"},
		{1, -1, "-1 bytes of statistics"},
		{1, MaxStatsBytes + 1, "16385 bytes of statistics, at most 16384 fit"},
	} {
		p, err := Create(c.slots, Layout{StatsBytes: c.stats})
		if err == nil {
			p.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Create(%d, %d bytes): %v, want %q", c.slots, c.stats, err, c.want)
		}
	}
}

// TestOpenRefuses: each wrong descriptor is refused with what was expected and
// what was found, and stays open.
func TestOpenRefuses(t *testing.T) {
	memory := func(t *testing.T, size int64, seals int) int {
		fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
		if err == nil {
			err = unix.Ftruncate(fd, size)
		}
		if err == nil {
			_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
		}
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	changed := func(change func(h *header)) func(*testing.T) int {
		return func(t *testing.T) int {
			p := newPage(t, 1)
			change(p.header)
			return dup(t, p.FD())
		}
	}
	for _, c := range []struct {
		name   string
		fd     func(*testing.T) int
		layout Layout
		want   []string
	}{
		{"file", func(t *testing.T) int {
			f, err := os.Open("/proc/self/exe")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			return dup(t, int(f.Fd()))
		}, testLayout, []string{"no memory sealed"}},
		{"unsealed", func(t *testing.T) int { return memory(t, 1<<20, 0) }, testLayout, []string{"no memory sealed"}},
		{"short", func(t *testing.T) int { return memory(t, 100, unix.F_SEAL_SHRINK) }, testLayout, []string{"has 100 bytes, want 135168 at least"}},
		{"zeros", func(t *testing.T) int { return memory(t, 1<<20, unix.F_SEAL_SHRINK) }, testLayout, []string{"magic number is 0x0, want 0x636174616d6f756e"}},
		{"version", changed(func(h *header) { h.version = 9 }), testLayout, []string{"version is 0x9, want 0x1"}},
		{"slot size", changed(func(h *header) { h.slotBytes = 64 }), testLayout, []string{"size of a slot is 0x40, want 0xc100"}},
		{"no slots", changed(func(h *header) { h.slots = 0 }), testLayout, []string{"not those of 0 slots"}},
		{"endless slots", changed(func(h *header) { h.slots = 1 << 60 }), testLayout, []string{"not those of 1152921504606846976 slots"}},
		{"stats", changed(func(*header) {}), Layout{72, 0xf00d}, []string{"size of the statistics is 0x40, want 0x48"}},
		{"fingerprint", changed(func(*header) {}), Layout{64, 1}, []string{"fingerprint of the statistics is 0xf00d, want 0x1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			fd := c.fd(t)
			p, err := Open(fd, c.layout)
			if err == nil {
				p.Close()
				t.Fatal("the page was opened")
			}
			if !errors.Is(err, ErrLayout) {
				t.Errorf("%v is no ErrLayout", err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
			if err := unix.Close(fd); err != nil {
				t.Errorf("the descriptor was not left open: %v", err)
			}
		})
	}
	if _, err := Open(-1, testLayout); !errors.Is(err, unix.EBADF) {
		t.Errorf("without a descriptor: %v", err)
	}
}

// TestAddInTwoProcesses: what two processes and a goroutine here add is all
// there, also in the words of a slot.
func TestAddInTwoProcesses(t *testing.T) {
	p := newPage(t, 2)
	children := []*child{startChild(t, "add", p), startChild(t, "add", p)}
	sum, err := p.Counter("sum")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range children { // both are there before either begins
		if got := c.line(t); got != "ready" {
			t.Fatal(got)
		}
	}
	for _, c := range children {
		if _, err := io.WriteString(c.input, "go\n"); err != nil {
			t.Fatal(err)
		}
	}
	for range addCount {
		sum.Add(1)
	}
	for _, c := range children {
		c.end(t)
	}
	const want = addCount * (1 + 2 + 2) // 2 at a time in the children
	if sum.Value() != want {
		t.Errorf("the sum is %d, want %d", sum.Value(), want)
	}
	if got := (*atomic.Uint64)(p.Slot(1).Stats()).Load(); got != 2*addCount {
		t.Errorf("the slot has %d, want %d", got, 2*addCount)
	}
}

const addCount = 500_000

func addInChild(p *Page) error {
	sum, err := p.Counter("sum")
	if err != nil {
		return err
	}
	os.Stdout.WriteString("ready\n")
	if _, err := os.Stdin.Read(make([]byte, 3)); err != nil {
		return err
	}
	word := (*atomic.Uint64)(p.Slot(1).Stats())
	for range addCount {
		sum.Add(2)
		word.Add(1)
	}
	awaitEnd()
	return nil
}
