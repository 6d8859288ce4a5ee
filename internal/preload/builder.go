package preload

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"slices"
	"sync"
)

// Builder writes sections: one at a time, each with a name of its own. A section
// that is not finished, or fails, leaves no trace but the memory it took; when
// the memory itself cannot be written, so does everything from then on.
//
// Its methods may be called from several goroutines, but while one section is
// open there cannot be another.
type Builder struct {
	mu       sync.Mutex
	fd       int
	end      int64 // of what is written
	sections []section
	open     *sectionWriter
	sealed   bool
	err      error // the memory could not be written
}

// NewBuilder writes to an empty memfd that can be sealed (see NewMemory). The
// descriptor remains the caller's, who may close it after Seal.
func NewBuilder(fd int) (*Builder, error) {
	if err := checkEmpty(fd); err != nil {
		return nil, err
	}
	return &Builder{fd: fd, end: int64(headerBytes)}, nil
}

// Create begins a section of bytes, which are streamed into it. Close finishes
// it; until then there can be no other.
func (b *Builder) Create(name string) (io.WriteCloser, error) {
	w, err := b.begin(name, kindBytes)
	if err != nil {
		return nil, err
	}
	return w, nil
}

// Put writes a section of bytes.
func (b *Builder) Put(name string, p []byte) error {
	return b.put(section{Name: name, Kind: kindBytes}, p)
}

func (b *Builder) put(s section, p []byte) error {
	w, err := b.begin(s.Name, s.Kind)
	if err != nil {
		return err
	}
	w.section.Count, w.section.Type, w.section.Layout = s.Count, s.Type, s.Layout
	if _, err := w.Write(p); err != nil {
		w.abandon()
		return err
	}
	return w.Close()
}

// begin begins a section.
func (b *Builder) begin(name string, k kind) (*sectionWriter, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.mayBegin(name); err != nil {
		return nil, fmt.Errorf("preload: section %.300q: %w", name, err)
	}
	at := (b.end + alignment - 1) / alignment * alignment
	b.end = at
	b.open = &sectionWriter{b: b, section: section{Name: name, Kind: k, At: at}}
	return b.open, nil
}

func (b *Builder) mayBegin(name string) error {
	switch {
	case b.sealed:
		return errors.New("everything is sealed already")
	case b.err != nil:
		return b.err
	case b.open != nil:
		return fmt.Errorf("section %q is still open, and there is one at a time", b.open.section.Name)
	}
	if slices.ContainsFunc(b.sections, func(s section) bool { return s.Name == name }) {
		return errors.New("there is one of that name already")
	}
	return checkName(name)
}

// Seal writes the manifest, seals the memory and checks that what is there is
// what was written. Nothing can be added afterwards.
func (b *Builder) Seal() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.sealed:
		return errors.New("preload: everything is sealed already")
	case b.err != nil:
		return b.err
	case b.open != nil:
		return fmt.Errorf("preload: section %q is still open", b.open.section.Name)
	}
	h, text, err := encode(b.sections, b.end)
	if err != nil {
		return err
	}
	if b.err = errors.Join(writeAt(b.fd, text, b.end), writeAt(b.fd, h.bytes(), 0)); b.err != nil {
		return b.err
	}
	if err := seal(b.fd); err != nil {
		return err
	}
	b.sealed = true
	d, err := mapData(b.fd)
	if err != nil {
		return err
	}
	defer d.unmap()
	return d.Verify()
}

// bufferBytes is how much of a section is collected before it is written.
const bufferBytes = 64 << 10

// sectionWriter writes the section that is open.
type sectionWriter struct {
	b       *Builder
	section section
	buffer  []byte
	closed  bool
}

// Write adds to the section.
func (w *sectionWriter) Write(p []byte) (int, error) {
	w.b.mu.Lock()
	defer w.b.mu.Unlock()
	if w.closed {
		return 0, fmt.Errorf("preload: section %q: %w", w.section.Name, fs.ErrClosed)
	}
	if len(w.buffer)+len(p) > bufferBytes {
		if err := w.flush(); err != nil {
			return 0, err
		}
	}
	if len(p) > bufferBytes {
		if err := w.writeOut(p); err != nil {
			return 0, err
		}
	} else {
		w.buffer = append(w.buffer, p...)
	}
	w.section.Bytes += int64(len(p))
	w.section.Sum = crc32.Update(w.section.Sum, castagnoli, p)
	return len(p), nil
}

// flushAll writes what has been collected, so that it can be read back.
func (w *sectionWriter) flushAll() error {
	w.b.mu.Lock()
	defer w.b.mu.Unlock()
	return w.flush()
}

// flush is flushAll while the lock is held.
func (w *sectionWriter) flush() error {
	err := w.writeOut(w.buffer)
	w.buffer = w.buffer[:0]
	return err
}

func (w *sectionWriter) writeOut(p []byte) error {
	if w.b.err != nil {
		return w.b.err
	}
	if err := writeAt(w.b.fd, p, w.b.end); err != nil {
		w.b.err = fmt.Errorf("section %q: %w", w.section.Name, err)
		return w.b.err
	}
	w.b.end += int64(len(p))
	return nil
}

// pad writes zeros up to a multiple of 8.
func (w *sectionWriter) pad() error {
	_, err := w.Write(make([]byte, -w.section.Bytes&7))
	return err
}

// Close finishes the section. Later calls do nothing.
func (w *sectionWriter) Close() error {
	w.b.mu.Lock()
	defer w.b.mu.Unlock()
	if w.closed {
		return nil
	}
	err := w.flush()
	w.closed = true
	w.b.open = nil
	if err == nil {
		w.b.sections = append(w.b.sections, w.section)
	}
	return err
}

// abandon ends the section without finishing it.
func (w *sectionWriter) abandon() {
	w.b.mu.Lock()
	defer w.b.mu.Unlock()
	if !w.closed {
		w.closed = true
		w.b.open = nil
	}
}
