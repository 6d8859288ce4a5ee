package preload

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"math/bits"
	"unsafe"
)

// A table is its keys and values in the order in which they were put, then an
// entry for each, then a hash table of the entries' numbers with the next free
// bucket for keys that fall on the same one. Buckets are 0 for none, or the
// number of the entry from 1.

type tableEntry struct {
	hash       uint64
	at         uint64 // of the key in the section; the value is behind it
	keyBytes   uint32
	valueBytes uint32
}

const (
	tableEntryBytes = int64(unsafe.Sizeof(tableEntry{}))
	bucketBytes     = 4
	// maxEntries bounds the entries of a table or directory.
	maxEntries = 1 << 30
)

// bucketCount is a power of two, at least twice as many as entries.
func bucketCount(entries int64) int64 {
	return 2 << bits.Len64(uint64(max(entries, 1)-1))
}

// hashOf is FNV-1a, with the upper half folded into the lower.
func hashOf(key string) uint64 {
	hash := uint64(14695981039346656037)
	for i := range len(key) {
		hash = (hash ^ uint64(key[i])) * 1099511628211
	}
	return hash ^ hash>>32
}

// TableBuilder writes a table. It is used by one goroutine.
type TableBuilder struct {
	w       *sectionWriter
	entries []tableEntry
	err     error
}

// Table begins a section that is a table from string to bytes. Close finishes
// it; until then there can be no other section. Of each key some thirty bytes
// are kept until then, of keys and values nothing.
func (b *Builder) Table(name string) (*TableBuilder, error) {
	w, err := b.begin(name, kindTable)
	if err != nil {
		return nil, err
	}
	return &TableBuilder{w: w}, nil
}

// Put adds a key, which must be a new one, and its value, each of less than
// 4 GiB. Close finds out about keys that were there before.
func (t *TableBuilder) Put(key string, value []byte) error {
	name := t.w.section.Name
	if len(key) > math.MaxUint32 || len(value) > math.MaxUint32 {
		return fmt.Errorf("preload: table %q: key %.100q: %d bytes with a value of %d are too many", name, key, len(key), len(value))
	}
	if len(t.entries) >= maxEntries {
		return fmt.Errorf("preload: table %q: key %.100q: there are %d keys already", name, key, maxEntries)
	}
	entry := tableEntry{hashOf(key), uint64(t.w.section.Bytes), uint32(len(key)), uint32(len(value))}
	if _, err := t.w.Write([]byte(key)); err != nil {
		t.err = err
		return err
	}
	if _, err := t.w.Write(value); err != nil {
		t.err = err
		return err
	}
	t.entries = append(t.entries, entry)
	return nil
}

// Close finishes the table. When a key was there twice, or Put has failed to
// write, there is no table. Later calls do nothing.
func (t *TableBuilder) Close() error {
	if t.w.closed {
		return nil
	}
	defer t.w.abandon() // unless it has been closed
	if t.err != nil {
		return t.err
	}
	buckets, err := t.index()
	if err != nil {
		return fmt.Errorf("preload: table %q: %w", t.w.section.Name, err)
	}
	if err := t.w.pad(); err != nil {
		return err
	}
	t.w.section.Count, t.w.section.Index = int64(len(t.entries)), t.w.section.Bytes
	for _, p := range [][]byte{bytesOf(t.entries), bytesOf(buckets)} {
		if _, err := t.w.Write(p); err != nil {
			return err
		}
	}
	return t.w.Close()
}

// index makes the hash table.
func (t *TableBuilder) index() ([]uint32, error) {
	if err := t.w.flushAll(); err != nil {
		return nil, err
	}
	buckets := make([]uint32, bucketCount(int64(len(t.entries))))
	mask := uint64(len(buckets) - 1)
	for i, entry := range t.entries {
		at := entry.hash & mask
		for ; buckets[at] != 0; at = (at + 1) & mask {
			other := t.entries[buckets[at]-1]
			if other.hash != entry.hash || other.keyBytes != entry.keyBytes {
				continue
			}
			key, err := t.key(entry)
			if err != nil {
				return nil, err
			}
			before, err := t.key(other)
			if err != nil {
				return nil, err
			}
			if key == before {
				return nil, fmt.Errorf("the key %.100q is there twice", key)
			}
		}
		buckets[at] = uint32(i + 1)
	}
	return buckets, nil
}

// key reads a key back.
func (t *TableBuilder) key(entry tableEntry) (string, error) {
	key := make([]byte, entry.keyBytes)
	err := readAt(t.w.b.fd, key, t.w.section.At+int64(entry.at))
	return string(key), err
}

// bytesOf is the memory of values without pointers.
func bytesOf[T any](values []T) []byte {
	var value T
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(values))), uintptr(len(values))*unsafe.Sizeof(value))
}

// Table is a section that a TableBuilder has written. Any number of goroutines
// may use it at once.
type Table struct {
	memory  []byte // keys and values
	entries []tableEntry
	buckets []uint32
}

// Table returns the table of that name.
func (d *Data) Table(name string) (*Table, error) {
	s, p, err := d.section(name, kindTable)
	if err != nil {
		return nil, err
	}
	return newTable(s, p), nil
}

// newTable relies on what section.check has seen.
func newTable(s section, p []byte) *Table {
	t := &Table{memory: p[:s.Index:s.Index]}
	entries, buckets := p[s.Index:], p[s.Index+s.Count*tableEntryBytes:]
	if s.Count > 0 {
		t.entries = unsafe.Slice((*tableEntry)(unsafe.Pointer(&entries[0])), s.Count)
		t.buckets = unsafe.Slice((*uint32)(unsafe.Pointer(&buckets[0])), bucketCount(s.Count))
	}
	return t
}

// Get returns the value of a key, as it lies in the shared memory, and whether
// there is one.
func (t *Table) Get(key string) (value string, ok bool) {
	if len(t.entries) == 0 {
		return "", false
	}
	hash, mask := hashOf(key), uint64(len(t.buckets)-1)
	at := hash & mask
	for range t.buckets {
		number := t.buckets[at]
		if number == 0 || uint64(number) > uint64(len(t.entries)) {
			return "", false
		}
		if t.entries[number-1].hash == hash {
			if found, value := t.entry(int(number - 1)); found == key {
				return value, true
			}
		}
		at = (at + 1) & mask
	}
	return "", false
}

// Len is how many keys there are.
func (t *Table) Len() int { return len(t.entries) }

// All are the keys and values, in the order in which they were put.
func (t *Table) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for i := range t.entries {
			if !yield(t.entry(i)) {
				return
			}
		}
	}
}

func (t *Table) entry(i int) (key, value string) {
	e := &t.entries[i]
	middle := uint64(e.keyBytes)
	p := piece(t.memory, e.at, middle+uint64(e.valueBytes))
	return p[:middle], p[middle:]
}

var errOutside = errors.New("preload: the index of a section points outside of it")

// piece is a part of shared memory as a string. A part that there is not, which
// Verify would have noticed, is a panic, as an index out of range is.
func piece(memory []byte, at, length uint64) string {
	if at > uint64(len(memory)) || length > uint64(len(memory))-at {
		panic(errOutside)
	}
	return unsafe.String(unsafe.SliceData(memory[at:]), length)
}
