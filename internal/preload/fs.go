package preload

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"sort"
	"strings"
	"time"
	"unsafe"
)

// FS is a directory that Builder.Dir has written: an fs.FS, also for
// http.FileServerFS and template.ParseFS. Files can be read at any place, and
// any number of goroutines may use it at once. Links are what they pointed to.
type FS struct {
	memory  []byte
	entries []dirEntry
}

// FS returns the directory of that name. It looks at each of its entries once.
func (d *Data) FS(name string) (*FS, error) {
	s, p, err := d.section(name, kindDir)
	if err != nil {
		return nil, err
	}
	f, err := newFS(s, p)
	if err != nil {
		return nil, fmt.Errorf("%w: section %q: %w", ErrFormat, name, err)
	}
	return f, nil
}

// newFS relies on what section.check has seen.
func newFS(s section, p []byte) (*FS, error) {
	entries := unsafe.Slice((*dirEntry)(unsafe.Pointer(&p[s.Index])), s.Count)
	memory := p[:s.Index:s.Index]
	inside := func(at, length uint64) bool {
		return at <= uint64(len(memory)) && length <= uint64(len(memory))-at
	}
	next := uint64(1) // every entry but the root is the child of one before it
	for i := range entries {
		e := &entries[i]
		mode := fs.FileMode(e.mode)
		switch {
		case !inside(e.nameAt, uint64(e.nameBytes)) || !inside(e.contentAt, e.content):
			return nil, fmt.Errorf("entry %d points outside", i)
		case mode.IsDir() && (uint64(e.firstChild) != next || uint64(i) >= next):
			return nil, fmt.Errorf("entry %d has its children at %d, want %d", i, e.firstChild, next)
		case !mode.IsDir() && (i == 0 || e.children != 0 || !mode.IsRegular()):
			return nil, fmt.Errorf("entry %d is a %v with %d children", i, mode, e.children)
		}
		next += uint64(e.children)
	}
	if next != uint64(len(entries)) {
		return nil, fmt.Errorf("%d entries, but %d children", len(entries), next-1)
	}
	return &FS{memory, entries}, nil
}

func (f *FS) name(e *dirEntry) string { return piece(f.memory, e.nameAt, uint64(e.nameBytes)) }

func (f *FS) content(e *dirEntry) string { return piece(f.memory, e.contentAt, e.content) }

func (f *FS) childrenOf(e *dirEntry) []dirEntry {
	return f.entries[e.firstChild : e.firstChild+e.children]
}

// find returns an error of fs's.
func (f *FS) find(operation, name string) (*dirEntry, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: operation, Path: name, Err: fs.ErrInvalid}
	}
	e := &f.entries[0]
	for rest, more := name, name != "."; more; {
		var part string
		part, rest, more = strings.Cut(rest, "/")
		children := f.childrenOf(e)
		i := sort.Search(len(children), func(i int) bool { return f.name(&children[i]) >= part })
		if i == len(children) || f.name(&children[i]) != part {
			return nil, &fs.PathError{Op: operation, Path: name, Err: fs.ErrNotExist}
		}
		e = &children[i]
	}
	return e, nil
}

// findFile is find for what must be no directory.
func (f *FS) findFile(operation, name string) (*dirEntry, error) {
	e, err := f.find(operation, name)
	if err == nil && fs.FileMode(e.mode).IsDir() {
		return nil, &fs.PathError{Op: operation, Path: name, Err: errIsDirectory}
	}
	return e, err
}

var errIsDirectory = errors.New("is a directory")

// Open implements fs.FS. Files are io.ReaderAt, io.Seeker and io.WriterTo too.
func (f *FS) Open(name string) (fs.File, error) {
	e, err := f.find("open", name)
	if err != nil {
		return nil, err
	}
	if fs.FileMode(e.mode).IsDir() {
		return &openDir{fs: f, entry: e, path: name}, nil
	}
	return &openFile{Reader: strings.NewReader(f.content(e)), info: fileInfo{f, e}}, nil
}

// Stat implements fs.StatFS.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	e, err := f.find("stat", name)
	if err != nil {
		return nil, err
	}
	return fileInfo{f, e}, nil
}

// ReadDir implements fs.ReadDirFS.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	e, err := f.find("readdir", name)
	if err != nil {
		return nil, err
	}
	if !fs.FileMode(e.mode).IsDir() {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: errNotDirectory}
	}
	return f.list(f.childrenOf(e)), nil
}

var errNotDirectory = errors.New("not a directory")

func (f *FS) list(entries []dirEntry) []fs.DirEntry {
	list := make([]fs.DirEntry, len(entries))
	for i := range entries {
		list[i] = fileInfo{f, &entries[i]}
	}
	return list
}

// ReadFile implements fs.ReadFileFS: it returns a copy. Contents does not.
func (f *FS) ReadFile(name string) ([]byte, error) {
	e, err := f.findFile("read", name)
	if err != nil {
		return nil, err
	}
	return []byte(f.content(e)), nil
}

// Contents returns a file's contents as they lie in the shared memory.
func (f *FS) Contents(name string) (string, error) {
	e, err := f.findFile("read", name)
	if err != nil {
		return "", err
	}
	return f.content(e), nil
}

// openFile is an open file.
type openFile struct {
	*strings.Reader
	info   fileInfo
	closed bool
}

func (o *openFile) Stat() (fs.FileInfo, error) { return o.info, nil }

func (o *openFile) Read(p []byte) (int, error) {
	if o.closed {
		return 0, &fs.PathError{Op: "read", Path: o.info.Name(), Err: fs.ErrClosed}
	}
	return o.Reader.Read(p)
}

func (o *openFile) Close() error {
	if o.closed {
		return &fs.PathError{Op: "close", Path: o.info.Name(), Err: fs.ErrClosed}
	}
	o.closed = true
	return nil
}

// openDir is an open directory.
type openDir struct {
	fs    *FS
	entry *dirEntry
	path  string
	read  int // how many of the children
}

func (o *openDir) Stat() (fs.FileInfo, error) { return fileInfo{o.fs, o.entry}, nil }
func (o *openDir) Close() error               { return nil }

func (o *openDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: o.path, Err: errIsDirectory}
}

func (o *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	rest := o.fs.childrenOf(o.entry)[o.read:]
	if n > 0 {
		if len(rest) == 0 {
			return nil, io.EOF
		}
		rest = rest[:min(n, len(rest))]
	}
	o.read += len(rest)
	return o.fs.list(rest), nil
}

// fileInfo is what there is to know of a file or directory: fs.FileInfo and
// fs.DirEntry.
type fileInfo struct {
	fs    *FS
	entry *dirEntry
}

func (i fileInfo) Name() string               { return path.Base(i.fs.name(i.entry)) }
func (i fileInfo) Size() int64                { return int64(i.entry.content) }
func (i fileInfo) Mode() fs.FileMode          { return fs.FileMode(i.entry.mode) }
func (i fileInfo) ModTime() time.Time         { return i.entry.modified() }
func (i fileInfo) IsDir() bool                { return i.Mode().IsDir() }
func (i fileInfo) Type() fs.FileMode          { return i.Mode().Type() }
func (i fileInfo) Info() (fs.FileInfo, error) { return i, nil }
func (i fileInfo) Sys() any                   { return nil }
func (i fileInfo) String() string             { return fs.FormatFileInfo(i) }
