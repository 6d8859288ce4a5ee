package preload

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
	"unsafe"
)

// A directory is the contents of its files, then all names, then an entry for
// each file and directory: the root first, then the children of each directory,
// sorted by name, together, after their parent.

type dirEntry struct {
	nameAt     uint64 // in the section
	contentAt  uint64 // in the section
	content    uint64 // bytes
	seconds    int64  // modification time, since 1970
	nanos      uint32
	mode       uint32 // fs.FileMode
	nameBytes  uint32
	firstChild uint32 // number of an entry
	children   uint32
	_          uint32
}

const dirEntryBytes = int64(unsafe.Sizeof(dirEntry{}))

// node is a file or directory while the section is written.
type node struct {
	name     string
	entry    dirEntry
	children []*node
}

// Dir writes a whole directory, such as os.DirFS or embed.FS: names, modes,
// modification times and contents. A link to a file becomes that file. A link to
// a directory, a device, a pipe or a socket is an error, which says where.
func (b *Builder) Dir(name string, fsys fs.FS) error {
	w, err := b.begin(name, kindDir)
	if err != nil {
		return err
	}
	defer w.abandon() // unless it has been closed
	d := dirWriter{w: w, fsys: fsys, buffer: make([]byte, bufferBytes)}
	if err := d.write(); err != nil {
		return fmt.Errorf("preload: directory %q: %w", name, err)
	}
	return w.Close()
}

type dirWriter struct {
	w      *sectionWriter
	fsys   fs.FS
	buffer []byte
	count  int
}

func (d *dirWriter) write() error {
	info, err := fs.Stat(d.fsys, ".")
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return errors.New("it is no directory")
	}
	root, err := d.add(".", info)
	if err != nil {
		return err
	}
	root.name = "."
	nodes := inOrder(root, d.count)
	entries := make([]dirEntry, len(nodes))
	for i, n := range nodes {
		n.entry.nameAt, n.entry.nameBytes = uint64(d.w.section.Bytes), uint32(len(n.name))
		if _, err := io.WriteString(d.w, n.name); err != nil {
			return err
		}
		entries[i] = n.entry
	}
	if err := d.w.pad(); err != nil {
		return err
	}
	d.w.section.Count, d.w.section.Index = int64(len(entries)), d.w.section.Bytes
	_, err = d.w.Write(bytesOf(entries))
	return err
}

// inOrder numbers the children of each directory.
func inOrder(root *node, count int) []*node {
	nodes := append(make([]*node, 0, count), root)
	for i := 0; i < len(nodes); i++ {
		n := nodes[i]
		n.entry.firstChild, n.entry.children = uint32(len(nodes)), uint32(len(n.children))
		nodes = append(nodes, n.children...)
	}
	return nodes
}

// add takes in a file or directory and what is below it.
func (d *dirWriter) add(name string, info fs.FileInfo) (*node, error) {
	if d.count++; d.count > maxEntries {
		return nil, fmt.Errorf("more than %d files", maxEntries)
	}
	modified := info.ModTime()
	n := &node{name: path.Base(name)}
	n.entry.mode = uint32(info.Mode())
	n.entry.seconds, n.entry.nanos = modified.Unix(), uint32(modified.Nanosecond())
	switch {
	case info.IsDir():
		return n, d.addChildren(n, name)
	case info.Mode().IsRegular():
		return n, d.addContent(n, name)
	}
	return nil, fmt.Errorf("%s is neither file nor directory: %v", name, info.Mode())
}

func (d *dirWriter) addChildren(n *node, name string) error {
	list, err := fs.ReadDir(d.fsys, name)
	if err != nil {
		return err
	}
	for _, each := range list {
		childName := path.Join(name, each.Name())
		if !fs.ValidPath(childName) {
			return fmt.Errorf("%q in %s: no valid name", each.Name(), name)
		}
		info, err := each.Info()
		if err == nil && info.Mode()&fs.ModeSymlink != 0 {
			if info, err = fs.Stat(d.fsys, childName); err == nil && info.IsDir() {
				err = fmt.Errorf("%s is a link to a directory", childName)
			}
		}
		if err != nil {
			return err
		}
		child, err := d.add(childName, info)
		if err != nil {
			return err
		}
		n.children = append(n.children, child)
	}
	slices.SortFunc(n.children, func(a, b *node) int { return strings.Compare(a.name, b.name) })
	return nil
}

func (d *dirWriter) addContent(n *node, name string) error {
	f, err := d.fsys.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	n.entry.contentAt = uint64(d.w.section.Bytes)
	size, err := io.CopyBuffer(d.w, struct{ io.Reader }{f}, d.buffer)
	n.entry.content = uint64(size)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// modified is the modification time.
func (e *dirEntry) modified() time.Time { return time.Unix(e.seconds, int64(e.nanos)) }
