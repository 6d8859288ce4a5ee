package preload

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Data is what has been preloaded, mapped for reading only. A nil *Data has no
// sections. Any number of goroutines may use it at once.
//
// What its methods return lies in the shared memory: it costs nothing, stays
// valid until Close, and must not be written to, which ends the process with a
// fault.
type Data struct {
	fd       int
	memory   []byte
	sections []section // by name
}

// Open maps memory that a Builder has sealed. It takes the descriptor over when
// it succeeds. It checks the seals, the manifest with its checksum, and where
// the sections lie, which takes the same time however large they are; their own
// checksums have been checked by Seal, see Verify. What is wrong with the memory
// is an ErrFormat that says what was expected and what was found.
func Open(fd int) (*Data, error) {
	if err := checkSealed(fd); err != nil {
		return nil, err
	}
	return mapData(fd)
}

func mapData(fd int) (*Data, error) {
	size, err := sizeOf(fd)
	if err != nil {
		return nil, err
	}
	if size < int64(headerBytes) {
		return nil, fmt.Errorf("%w: descriptor %d has %d bytes, want %d at least", ErrFormat, fd, size, headerBytes)
	}
	memory, err := unix.Mmap(fd, 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("preload: mmap %d bytes: %w", size, err)
	}
	d := &Data{fd: fd, memory: memory}
	if d.sections, err = decode(memory); err != nil {
		_ = d.unmap()
		return nil, err
	}
	return d, nil
}

// Local is for a process by itself: it calls fill and returns what has been
// filled in. It is the same as with several processes, also in what it refuses.
func Local(fill func(*Builder) error) (*Data, error) {
	fd, err := NewMemory()
	if err != nil {
		return nil, err
	}
	d, err := fillAndOpen(fd, fill)
	if err != nil {
		unix.Close(fd)
	}
	return d, err
}

func fillAndOpen(fd int, fill func(*Builder) error) (*Data, error) {
	b, err := NewBuilder(fd)
	if err != nil {
		return nil, err
	}
	if err := fill(b); err != nil {
		return nil, err
	}
	if err := b.Seal(); err != nil {
		return nil, err
	}
	return Open(fd)
}

// Bytes returns a section of bytes.
func (d *Data) Bytes(name string) ([]byte, error) {
	_, p, err := d.section(name, kindBytes)
	return p, err
}

// String returns a section of bytes as a string, which is not copied either.
func (d *Data) String(name string) (string, error) {
	_, p, err := d.section(name, kindBytes)
	return unsafe.String(unsafe.SliceData(p), len(p)), err
}

// Names are the names of all sections, sorted.
func (d *Data) Names() []string {
	if d == nil {
		return nil
	}
	names := make([]string, len(d.sections))
	for i, s := range d.sections {
		names[i] = s.Name
	}
	return names
}

// Size is how many bytes there are in all.
func (d *Data) Size() int64 {
	if d == nil {
		return 0
	}
	return int64(len(d.memory))
}

// Verify reads everything and compares it with the sections' checksums. Seal has
// done so; since then nobody can have changed anything.
func (d *Data) Verify() error {
	if d == nil {
		return nil
	}
	for _, s := range d.sections {
		if sum := checksum(d.memory[s.At : s.At+s.Bytes]); sum != s.Sum {
			return fmt.Errorf("%w: the checksum of section %q is %#x, want %#x", ErrFormat, s.Name, sum, s.Sum)
		}
	}
	return nil
}

// Close unmaps the memory. Nothing that was taken from it may be used any more.
// A process that ends need not call it.
func (d *Data) Close() error {
	if d == nil {
		return nil
	}
	return errors.Join(d.unmap(), unix.Close(d.fd))
}

func (d *Data) unmap() error {
	d.sections = nil
	return unix.Munmap(d.memory)
}

// section finds the section of a name, which must be of a kind.
func (d *Data) section(name string, want kind) (section, []byte, error) {
	if d == nil {
		return section{}, nil, fmt.Errorf("preload: there is no section %.300q: nothing has been preloaded", name)
	}
	i, ok := slices.BinarySearchFunc(d.sections, name, func(s section, name string) int { return strings.Compare(s.Name, name) })
	if !ok {
		return section{}, nil, fmt.Errorf("preload: there is no section %.300q; there is: %s", name, d.list())
	}
	s := d.sections[i]
	if s.Kind != want {
		return section{}, nil, fmt.Errorf("preload: section %q is %v, not %v", name, s, section{Kind: want})
	}
	end := s.At + s.Bytes
	return s, d.memory[s.At:end:end], nil
}

// list names the sections, the first of many.
func (d *Data) list() string {
	const most = 20
	var names []string
	for _, s := range d.sections {
		if len(names) == most {
			names = append(names, fmt.Sprintf("and %d more", len(d.sections)-most))
			break
		}
		names = append(names, fmt.Sprintf("%q (%v)", s.Name, s))
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
