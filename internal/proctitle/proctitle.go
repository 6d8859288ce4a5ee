// Package proctitle writes what ps shows as a process's command line.
//
// The callers: package cluster for the master, package worker for workers. The
// kernel is told to look for the command line elsewhere, in memory that belongs
// to a Title; where it does not let itself be told, the title goes into the
// memory of the first word of the command line, as far as there is room.
//
// The invariant: nothing but that first word, which the caller gives away, is
// written to: Go's os.Args, and what has been cut out of it, lie in the same
// memory as the command line.
package proctitle

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Room is how many bytes a title may have; what is longer is cut.
const Room = 255

// Title is the title of this process. A process has one.
type Title struct {
	memory []byte
	blank  byte // what follows a title that is shorter than the memory
	last   string
}

// New makes room for a title. word is the first word of the command line, still
// where the kernel has put it: nobody may use it afterwards. It is "" if there
// is none to give.
func New(word string) *Title {
	if memory, err := relocate(); err == nil {
		return &Title{memory: memory, blank: 0}
	}
	if word == "" {
		return &Title{}
	}
	return &Title{memory: unsafe.Slice(unsafe.StringData(word), len(word)), blank: ' '}
}

// Set shows a title; a nil Title has nowhere to show it. It is not for several
// goroutines at once.
func (t *Title) Set(text string) {
	if t == nil || text == t.last || len(t.memory) == 0 {
		return
	}
	t.last = text
	n := copy(t.memory[:min(len(t.memory), Room)], text)
	for i := n; i < len(t.memory); i++ {
		t.memory[i] = t.blank
	}
}

// memoryMap is struct prctl_mm_map of <linux/prctl.h>.
type memoryMap struct {
	startCode, endCode, startData, endData, startBrk, brk, startStack, argStart, argEnd, envStart, envEnd uint64
	auxv                                                                                                  uint64
	auxvSize, exe                                                                                         uint32
}

// relocate makes memory of our own the place of the command line (prctl(2),
// PR_SET_MM_MAP), which needs no privilege. All other places stay.
func relocate() ([]byte, error) {
	m, err := readMap()
	if err != nil {
		return nil, err
	}
	// It is never given back: it is the process's title from here on.
	memory, err := unix.Mmap(-1, 0, Room+1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, err
	}
	m.argStart = uint64(uintptr(unsafe.Pointer(&memory[0])))
	m.argEnd = m.argStart + uint64(len(memory))
	if err := unix.Prctl(unix.PR_SET_MM, unix.PR_SET_MM_MAP, uintptr(unsafe.Pointer(&m)), unsafe.Sizeof(m), 0); err != nil {
		_ = unix.Munmap(memory)
		return nil, err
	}
	return memory, nil
}

// readMap reads from /proc/self/stat what is to stay (proc(5) numbers the
// fields).
func readMap() (m memoryMap, err error) {
	text, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return m, err
	}
	// The second field is a name in parentheses, with anything in it.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const first = 3
	for number, where := range map[int]*uint64{
		26: &m.startCode, 27: &m.endCode, 28: &m.startStack, 45: &m.startData, 46: &m.endData, 47: &m.startBrk,
		50: &m.envStart, 51: &m.envEnd,
	} {
		if number-first >= len(fields) {
			return m, fmt.Errorf("/proc/self/stat: field %d is missing", number)
		}
		if *where, err = strconv.ParseUint(fields[number-first], 10, 64); err != nil {
			return m, fmt.Errorf("/proc/self/stat: field %d: %w", number, err)
		}
		if *where == 0 {
			return m, fmt.Errorf("/proc/self/stat: field %d is withheld", number)
		}
	}
	end, _, errno := unix.RawSyscall(unix.SYS_BRK, 0, 0, 0)
	if errno != 0 {
		return m, errno
	}
	m.brk, m.exe = uint64(end), ^uint32(0) // no other executable
	return m, nil
}
