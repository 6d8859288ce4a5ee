package preload

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"runtime"
	"slices"
	"strings"
	"unicode/utf8"
	"unsafe"
)

// The memory is a header, then the sections, each at a multiple of alignment,
// then the manifest, which is JSON. All numbers are in the byte order of the
// machine.

const (
	// version of the whole format: header, manifest, tables and directories.
	version = 1
	magic   = 0x63617461_7072656c // "cataprel"
	// alignment of sections: a cache line, enough for every type of Go's.
	alignment = 64
	// MaxNameBytes bounds the name of a section.
	MaxNameBytes = 255
)

// header is at the start.
type header struct {
	magic, version            uint64
	manifestAt, manifestBytes uint64
	size                      uint64 // of everything
	manifestSum, sum          uint32 // crc32c of the manifest, and of this up to here
}

const headerBytes = int(unsafe.Sizeof(header{}))

func (h *header) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(h)), headerBytes)
}

func (h *header) checksum() uint32 {
	return checksum(h.bytes()[:unsafe.Offsetof(h.sum)])
}

// kind is what a section holds.
type kind string

const (
	kindBytes kind = "bytes"
	kindSlice kind = "slice"
	kindTable kind = "table"
	kindDir   kind = "directory"
)

// section is what the manifest says of one.
type section struct {
	Name  string `json:"name"`
	Kind  kind   `json:"kind"`
	At    int64  `json:"at"`    // in the memory
	Bytes int64  `json:"bytes"` // without the padding behind it
	Sum   uint32 `json:"sum"`   // crc32c
	// Count is how many elements a slice, entries a table, files and directories
	// a directory has.
	Count int64 `json:"count,omitempty"`
	// Index is where in the section the entries of a table or directory begin.
	Index int64 `json:"index,omitempty"`
	// Type is the name of a slice's element type, Layout what it looks like.
	Type   string `json:"type,omitempty"`
	Layout string `json:"layout,omitempty"`
}

func (s section) String() string {
	if s.Kind == kindSlice && s.Type != "" {
		return "a slice of " + s.Type
	}
	return map[kind]string{kindBytes: "bytes", kindSlice: "a slice", kindTable: "a table", kindDir: "a directory"}[s.Kind]
}

type manifest struct {
	Arch     string    `json:"arch"`
	Sections []section `json:"sections"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }

// encode returns the header and the manifest for so many bytes of header and
// sections.
func encode(sections []section, manifestAt int64) (*header, []byte, error) {
	text, err := json.Marshal(manifest{Arch: runtime.GOARCH, Sections: sections})
	if err != nil {
		return nil, nil, fmt.Errorf("preload: manifest: %w", err)
	}
	h := &header{
		magic: magic, version: version,
		manifestAt: uint64(manifestAt), manifestBytes: uint64(len(text)),
		size:        uint64(manifestAt) + uint64(len(text)),
		manifestSum: checksum(text),
	}
	h.sum = h.checksum()
	return h, text, nil
}

// ErrFormat: the memory was not written by this version of this package, on a
// machine of this kind.
var ErrFormat = errors.New("preload: not what this program writes")

// decode reads header and manifest, and checks that every section lies within
// the memory and has the size that belongs to its count.
func decode(memory []byte) ([]section, error) {
	var h header
	if copy(h.bytes(), memory) < headerBytes {
		return nil, fmt.Errorf("%w: %d bytes, want %d at least", ErrFormat, len(memory), headerBytes)
	}
	for _, field := range []struct {
		name        string
		found, want uint64
	}{
		{"magic number", h.magic, magic},
		{"version", h.version, version},
		{"checksum of the header", uint64(h.checksum()), uint64(h.sum)},
		{"size", h.size, uint64(len(memory))},
	} {
		if field.found != field.want {
			return nil, fmt.Errorf("%w: its %s is %#x, want %#x", ErrFormat, field.name, field.found, field.want)
		}
	}
	if h.manifestAt < uint64(headerBytes) || h.manifestAt > h.size || h.manifestBytes != h.size-h.manifestAt {
		return nil, fmt.Errorf("%w: a manifest of %d bytes at %d of %d", ErrFormat, h.manifestBytes, h.manifestAt, h.size)
	}
	text := memory[h.manifestAt:]
	if sum := checksum(text); sum != h.manifestSum {
		return nil, fmt.Errorf("%w: its checksum of the manifest is %#x, want %#x", ErrFormat, sum, h.manifestSum)
	}
	var m manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", ErrFormat, err)
	}
	if m.Arch != runtime.GOARCH {
		return nil, fmt.Errorf("%w: it was written on %.32q, this is %q", ErrFormat, m.Arch, runtime.GOARCH)
	}
	slices.SortFunc(m.Sections, func(a, b section) int { return strings.Compare(a.Name, b.Name) })
	for i, s := range m.Sections {
		if err := s.check(int64(h.manifestAt)); err != nil {
			return nil, fmt.Errorf("%w: section %.300q: %w", ErrFormat, s.Name, err)
		}
		if i > 0 && s.Name == m.Sections[i-1].Name {
			return nil, fmt.Errorf("%w: section %q is there twice", ErrFormat, s.Name)
		}
	}
	return m.Sections, nil
}

// check tells whether a section fits into the first end bytes. Its own
// structure is only looked at here as far as that takes no time.
func (s section) check(end int64) error {
	if err := checkName(s.Name); err != nil {
		return err
	}
	if s.At < int64(headerBytes) || s.At%alignment != 0 || s.At > end || s.Bytes < 0 || s.Bytes > end-s.At {
		return fmt.Errorf("%d bytes at %d of %d", s.Bytes, s.At, end)
	}
	var indexBytes int64
	switch s.Kind {
	case kindBytes, kindSlice:
		return nil // the size of an element is not known here
	case kindTable:
		if s.Count < 0 || s.Count > maxEntries {
			return fmt.Errorf("%d entries", s.Count)
		}
		indexBytes = s.Count*tableEntryBytes + bucketCount(s.Count)*bucketBytes
	case kindDir:
		if s.Count < 1 || s.Count > maxEntries {
			return fmt.Errorf("%d files and directories", s.Count)
		}
		indexBytes = s.Count * dirEntryBytes
	default:
		return fmt.Errorf("unknown kind %.32q", s.Kind)
	}
	if s.Index < 0 || s.Index%8 != 0 || s.Index > s.Bytes || indexBytes != s.Bytes-s.Index {
		return fmt.Errorf("an index of %d bytes at %d of %d", indexBytes, s.Index, s.Bytes)
	}
	return nil
}

func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("a section needs a name")
	case len(name) > MaxNameBytes:
		return fmt.Errorf("a name has at most %d bytes, this one %d", MaxNameBytes, len(name))
	case !utf8.ValidString(name):
		return errors.New("a name must be UTF-8")
	}
	return nil
}
