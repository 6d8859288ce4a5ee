package page

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Version of the page's layout, except for what Layout describes. A process
// that expects another one is refused the page.
const Version = 1

const magic = 0x63617461_6d6f756e // "catamoun"

// Layout is what a program keeps in a slot's statistics.
type Layout struct {
	// StatsBytes is the size of the statistics, at most MaxStatsBytes.
	StatsBytes int
	// Fingerprint tells layouts of the same size apart.
	Fingerprint uint64
}

// MaxStatsBytes bounds Layout.StatsBytes.
const MaxStatsBytes = 16 << 10

// MaxSlots bounds how many workers a page has room for.
const MaxSlots = 256

// header is at the start of the page. It does not change once it is written.
type header struct {
	magic       uint64
	version     uint64
	slots       uint64
	statsBytes  uint64
	fingerprint uint64
	namesAt     uint64
	slotsAt     uint64
	slotBytes   uint64
	size        uint64
}

// Global has the words that only the master writes.
type Global struct {
	// Stopping is 1 from the moment the master has been told to stop: workers
	// announce Connection: close, though they still accept.
	Stopping atomic.Uint32
	// Live is the number of workers that are meant to serve.
	Live atomic.Uint32
	// Phase is the phase of the newest workers.
	Phase atomic.Uint64
	_     [48]byte
}

// Page is a mapping of the shared memory.
type Page struct {
	fd     int
	memory []byte
	header *header
}

const (
	globalAt = 128
	namesAt  = 4096
	slotsAt  = namesAt + MaxNames*nameBytes
)

// Create makes a page for so many workers. The caller closes it.
func Create(slots int, layout Layout) (*Page, error) {
	if slots < 1 || slots > MaxSlots {
		return nil, fmt.Errorf("page: %d slots, want 1 to %d", slots, MaxSlots)
	}
	if layout.StatsBytes < 0 || layout.StatsBytes > MaxStatsBytes {
		return nil, fmt.Errorf("page: %d bytes of statistics, at most %d fit", layout.StatsBytes, MaxStatsBytes)
	}
	fd, err := unix.MemfdCreate("catamount-page", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("page: memfd_create: %w", err)
	}
	size := slotsAt + slots*slotBytes
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("page: ftruncate: %w", err)
	}
	// Nobody can take the memory away from under the others.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("page: seal: %w", err)
	}
	p, err := mapPage(fd, size)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	*p.header = header{
		magic: magic, version: Version, slots: uint64(slots),
		statsBytes: uint64(layout.StatsBytes), fingerprint: layout.Fingerprint,
		namesAt: namesAt, slotsAt: uint64(slotsAt), slotBytes: uint64(slotBytes), size: uint64(size),
	}
	return p, nil
}

// ErrLayout: the page was made by a program that lays it out otherwise.
var ErrLayout = errors.New("page: made for another program")

// Open maps the page behind an inherited descriptor. It takes the descriptor
// over when it succeeds. A page that was made for another layout gives an
// ErrLayout that says what was expected and what was found.
func Open(fd int, layout Layout) (*Page, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return nil, fmt.Errorf("page: descriptor %d: %w", fd, err)
	}
	// A page that could shrink could take the memory away from under us.
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil || seals&unix.F_SEAL_SHRINK == 0 {
		return nil, fmt.Errorf("%w: descriptor %d is no memory sealed by a master", ErrLayout, fd)
	}
	if stat.Size < int64(slotsAt) {
		return nil, fmt.Errorf("%w: descriptor %d has %d bytes, want %d at least", ErrLayout, fd, stat.Size, slotsAt)
	}
	p, err := mapPage(fd, int(stat.Size))
	if err != nil {
		return nil, err
	}
	if err := p.check(layout); err != nil {
		_ = unix.Munmap(p.memory)
		return nil, err
	}
	return p, nil
}

func (p *Page) check(layout Layout) error {
	h := p.header
	for _, field := range []struct {
		name        string
		found, want uint64
	}{
		{"magic number", h.magic, magic},
		{"version", h.version, Version},
		{"size", h.size, uint64(len(p.memory))},
		{"place of the slots", h.slotsAt, uint64(slotsAt)},
		{"size of a slot", h.slotBytes, uint64(slotBytes)},
		{"size of the statistics", h.statsBytes, uint64(layout.StatsBytes)},
		{"fingerprint of the statistics", h.fingerprint, layout.Fingerprint},
	} {
		if field.found != field.want {
			return fmt.Errorf("%w: its %s is %#x, want %#x", ErrLayout, field.name, field.found, field.want)
		}
	}
	if h.slots < 1 || h.slots > MaxSlots || uint64(slotsAt)+h.slots*uint64(slotBytes) != h.size {
		return fmt.Errorf("%w: its %d bytes are not those of %d slots", ErrLayout, h.size, h.slots)
	}
	return nil
}

func mapPage(fd, size int) (*Page, error) {
	memory, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("page: mmap: %w", err)
	}
	return &Page{fd: fd, memory: memory, header: (*header)(unsafe.Pointer(&memory[0]))}, nil
}

// FD is the descriptor to hand to other processes.
func (p *Page) FD() int { return p.fd }

// Slots is how many workers there is room for.
func (p *Page) Slots() int { return int(p.header.slots) }

// Global has the words of the master.
func (p *Page) Global() *Global { return (*Global)(unsafe.Pointer(&p.memory[globalAt])) }

// Slot is the worker's with that index, from 0.
func (p *Page) Slot(index int) *Slot {
	return (*Slot)(unsafe.Pointer(&p.memory[slotsAt+index*slotBytes : slotsAt+(index+1)*slotBytes][0]))
}

// Close unmaps the page. Nothing that was taken from it may be used any more.
func (p *Page) Close() error {
	return errors.Join(unix.Munmap(p.memory), unix.Close(p.fd))
}
