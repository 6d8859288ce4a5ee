package preload

import (
	"io/fs"
	"testing"
	"testing/fstest"
)

// FuzzDecode reads memory with any manifest and sections: what is accepted can
// be read without leaving the memory. (Checksums are right; they would keep all
// of this away.)
func FuzzDecode(f *testing.F) {
	d, err := Local(func(b *Builder) error {
		table, err := b.Table("table")
		if err != nil {
			return err
		}
		for _, key := range []string{"one", "two", "three"} {
			if err := table.Put(key, []byte("value")); err != nil {
				return err
			}
		}
		if err := table.Close(); err != nil {
			return err
		}
		if err := PutSlice(b, "slice", []int64{1, 2, 3}); err != nil {
			return err
		}
		if err := b.Dir("dir", fstest.MapFS{"a/b": {Data: []byte("x")}, "c": {Data: []byte("y")}}); err != nil {
			return err
		}
		return b.Put("bytes", []byte("some"))
	})
	if err != nil {
		f.Fatal(err)
	}
	defer d.Close()
	var h header
	copy(h.bytes(), d.memory)
	f.Add(d.memory[headerBytes:h.manifestAt], string(d.memory[h.manifestAt:]))
	f.Fuzz(func(t *testing.T, sections []byte, text string) {
		memory := withManifest(sections, text)
		list, err := decode(memory)
		if err != nil {
			return
		}
		d := &Data{memory: memory, sections: list}
		for _, s := range list {
			readAll(t, d, s)
		}
	})
}

func readAll(t *testing.T, d *Data, s section) {
	switch s.Kind {
	case kindBytes:
		if p, err := d.Bytes(s.Name); err != nil || int64(len(p)) != s.Bytes {
			t.Errorf("%q: %d bytes, %v", s.Name, len(p), err)
		}
	case kindSlice:
		if values, err := Slice[int64](d, s.Name); err == nil {
			for range values {
			}
		}
	case kindTable:
		table, err := d.Table(s.Name)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			// An index that points outside is a panic of ours, not a fault.
			if p := recover(); p != nil && p != errOutside {
				panic(p)
			}
		}()
		table.Get("one")
		for key := range table.All() {
			table.Get(key)
		}
	case kindDir:
		f, err := d.FS(s.Name)
		if err != nil {
			return
		}
		_ = fs.WalkDir(f, ".", func(name string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				_, _ = fs.ReadFile(f, name)
			}
			return nil
		})
	}
}
