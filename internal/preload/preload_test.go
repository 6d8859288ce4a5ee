package preload

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"
)

// point is an element with padding.
type point struct {
	Name [5]byte
	X, Y float64
	Set  bool
}

func newMemory(t testing.TB) int {
	t.Helper()
	fd, err := NewMemory()
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// newBuilder returns a builder whose memory goes at the end of the test.
func newBuilder(t testing.TB) *Builder {
	t.Helper()
	fd := newMemory(t)
	t.Cleanup(func() { unix.Close(fd) })
	b, err := NewBuilder(fd)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// preloaded returns what fill writes.
func preloaded(t testing.TB, fill func(*Builder) error) *Data {
	t.Helper()
	d, err := Local(fill)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// complain reports an error that does not say what it should.
func complain(t *testing.T, what string, err error, want ...string) {
	t.Helper()
	for _, want := range want {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error is %v, want %q in it", what, err, want)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	streamed := bytes.Repeat([]byte("0123456789"), 50_000)
	points := []point{{[5]byte{'a'}, 1, -2, true}, {[5]byte{'b'}, math.Inf(1), math.MaxFloat64, false}}
	d := preloaded(t, func(b *Builder) error {
		w, err := b.Create("streamed")
		if err != nil {
			return err
		}
		for p := range slices.Chunk(streamed, 777) {
			if n, err := w.Write(p); n != len(p) || err != nil {
				return fmt.Errorf("%d of %d bytes written: %w", n, len(p), err)
			}
		}
		table := func(name string, keys ...string) error {
			t, err := b.Table(name)
			if err != nil {
				return err
			}
			defer t.Close()
			for _, key := range keys {
				if err := t.Put(key, []byte("value of "+key)); err != nil {
					return err
				}
			}
			return t.Close()
		}
		return errors.Join(w.Close(), w.Close(),
			b.Put("small", []byte("x")),
			b.Put("empty", nil),
			PutSlice(b, "points", points),
			PutSlice(b, "numbers", []uint16{1, 2, math.MaxUint16}),
			PutSlice(b, "none", []point{}),
			table("table", "one", "", "two"),
			table("empty table"),
			b.Dir("dir", fstest.MapFS{"a/b": {Data: []byte("contents")}}))
	})
	if p, err := d.Bytes("streamed"); err != nil || !bytes.Equal(p, streamed) || cap(p) != len(p) {
		t.Errorf("streamed: %d bytes, %v", len(p), err)
	}
	if s, err := d.String("streamed"); err != nil || s != string(streamed) {
		t.Errorf("streamed as a string: %d bytes, %v", len(s), err)
	}
	if s, err := d.String("small"); err != nil || s != "x" {
		t.Errorf("small: %q, %v", s, err)
	}
	if p, err := d.Bytes("empty"); err != nil || len(p) != 0 {
		t.Errorf("empty: %q, %v", p, err)
	}
	if got, err := Slice[point](d, "points"); err != nil || !slices.Equal(got, points) || cap(got) != len(got) {
		t.Errorf("points: %v, %v", got, err)
	}
	if got, err := Slice[uint16](d, "numbers"); err != nil || !slices.Equal(got, []uint16{1, 2, math.MaxUint16}) {
		t.Errorf("numbers: %v, %v", got, err)
	}
	if got, err := Slice[point](d, "none"); err != nil || len(got) != 0 {
		t.Errorf("none: %v, %v", got, err)
	}
	table, err := d.Table("table")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"one", "two", ""} {
		if value, ok := table.Get(key); !ok || value != "value of "+key {
			t.Errorf("table: %q is %q, %t", key, value, ok)
		}
	}
	if value, ok := table.Get("three"); ok {
		t.Errorf("table: there is %q", value)
	}
	if table, err := d.Table("empty table"); err != nil || table.Len() != 0 || len(maps.Collect(table.All())) != 0 {
		t.Errorf("empty table: %v, %v", table, err)
	} else if _, ok := table.Get(""); ok {
		t.Error("the empty table has a value")
	}
	if f, err := d.FS("dir"); err != nil {
		t.Error(err)
	} else if p, err := fs.ReadFile(f, "a/b"); err != nil || string(p) != "contents" {
		t.Errorf("dir: %q, %v", p, err)
	}
	want := []string{"dir", "empty", "empty table", "none", "numbers", "points", "small", "streamed", "table"}
	if got := d.Names(); !slices.Equal(got, want) {
		t.Errorf("the names are %q, want %q", got, want)
	}
	if err := d.Verify(); err != nil {
		t.Error(err)
	}
	if d.Size() < int64(len(streamed)) {
		t.Errorf("the size is %d", d.Size())
	}
}

func TestNothingPreloaded(t *testing.T) {
	var d *Data
	_, err := d.Bytes("x")
	complain(t, "Bytes", err, `no section "x": nothing has been preloaded`)
	if d.Names() != nil || d.Size() != 0 || d.Verify() != nil || d.Close() != nil {
		t.Error("nil is more than nothing")
	}
	empty := preloaded(t, func(*Builder) error { return nil })
	_, err = empty.String("x")
	complain(t, "String", err, `no section "x"; there is: none`)
}

func TestReadingRefused(t *testing.T) {
	d := preloaded(t, func(b *Builder) error {
		return errors.Join(b.Put("blob", []byte("x")), PutSlice(b, "points", []point{{}}), PutSlice(b, "ints", []int64{1}),
			b.Dir("dir", fstest.MapFS{}))
	})
	_, err := d.Bytes("blub")
	complain(t, "missing", err, `no section "blub"; there is: "blob" (bytes), "dir" (a directory), "ints" (a slice of int64), "points" (a slice of preload.point)`)
	_, err = d.Table("points")
	complain(t, "slice as table", err, `"points" is a slice of preload.point, not a table`)
	_, err = d.FS("blob")
	complain(t, "bytes as directory", err, `"blob" is bytes, not a directory`)
	_, err = d.Bytes("dir")
	complain(t, "directory as bytes", err, `"dir" is a directory, not bytes`)
	_, err = Slice[point](d, "dir")
	if err == nil || !strings.HasSuffix(err.Error(), `"dir" is a directory, not a slice`) {
		t.Errorf("directory as slice: %v", err)
	}
	_, err = Slice[uint64](d, "ints")
	complain(t, "another type", err, `"ints" is a slice of int64, not of uint64`)
	_, err = Slice[time.Duration](d, "ints")
	complain(t, "a type of the same kind", err, `"ints" is a slice of int64, not of time.Duration`)
	_, err = Slice[*int](d, "ints")
	complain(t, "pointers", err, `*int is a *int (ptr)`)

	many := preloaded(t, func(b *Builder) error {
		for i := range 100 {
			if err := b.Put(fmt.Sprint("section ", i), nil); err != nil {
				return err
			}
		}
		return nil
	})
	_, err = many.Bytes("x")
	complain(t, "one of many", err, `and 80 more`)
	if len(err.Error()) > 1000 {
		t.Errorf("the error has %d bytes", len(err.Error()))
	}
}

// TestOtherLayout: the type has the same name in the program that reads, but
// has changed.
func TestOtherLayout(t *testing.T) {
	d := preloaded(t, func(b *Builder) error {
		type row struct{ A, B int32 }
		return PutSlice(b, "rows", []row{{1, 2}})
	})
	type row struct {
		B, A int32
	}
	_, err := Slice[row](d, "rows")
	complain(t, "swapped fields", err, "A@0 int32; B@4 int32", "B@0 int32; A@4 int32")
}

func TestBuilderMisuse(t *testing.T) {
	b := newBuilder(t)
	w, err := b.Create("one")
	if err != nil {
		t.Fatal(err)
	}
	open := `section "one" is still open`
	_, err = b.Create("two")
	complain(t, "Create while open", err, `section "two": `+open)
	complain(t, "Put while open", b.Put("two", nil), open)
	complain(t, "PutSlice while open", PutSlice(b, "two", []int{1}), open)
	complain(t, "Dir while open", b.Dir("two", fstest.MapFS{}), open)
	_, err = b.Table("two")
	complain(t, "Table while open", err, open)
	complain(t, "Seal while open", b.Seal(), open)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("x")); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Write after Close: %v", err)
	}
	complain(t, "twice", b.Put("one", nil), `section "one": there is one of that name already`)
	_, err = b.Table("one")
	complain(t, "twice", err, `there is one of that name already`)
	complain(t, "no name", b.Put("", nil), "needs a name")
	complain(t, "long name", b.Put(strings.Repeat("n", 1e6), nil), "at most 255 bytes, this one 1000000")
	complain(t, "no UTF-8", b.Put("\xff", nil), "must be UTF-8")
	if err := b.Seal(); err != nil {
		t.Fatal(err)
	}
	sealed := "everything is sealed already"
	complain(t, "Put after Seal", b.Put("three", nil), sealed)
	complain(t, "Seal after Seal", b.Seal(), sealed)
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("Write after Seal succeeds")
	}
}

// TestFailedSection: a section that has failed leaves its name free.
func TestFailedSection(t *testing.T) {
	d := preloaded(t, func(b *Builder) error {
		complain(t, "Dir", b.Dir("x", fstest.MapFS{"a/pipe": {Mode: fs.ModeNamedPipe}}), `directory "x": a/pipe is neither file nor directory`)
		complain(t, "Dir of a file", b.Dir("x", os.DirFS("/proc/self/exe")), `directory "x"`)
		table, err := b.Table("x")
		if err != nil {
			return err
		}
		complain(t, "Table", errors.Join(table.Put("key", nil), table.Put("other", nil), table.Put("key", nil), table.Close()),
			`table "x": the key "key" is there twice`)
		if err := table.Close(); err != nil {
			t.Errorf("the second Close: %v", err)
		}
		if _, err := table.w.Write(nil); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("Put after Close: %v", err)
		}
		return b.Put("x", []byte("at last"))
	})
	if s, err := d.String("x"); s != "at last" {
		t.Errorf("%q, %v", s, err)
	}
}

// TestMemoryFull: the memory cannot take more.
func TestMemoryFull(t *testing.T) {
	b := newBuilder(t)
	if err := b.Put("before", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(b.fd), unix.F_ADD_SEALS, unix.F_SEAL_GROW); err != nil {
		t.Fatal(err)
	}
	err := b.Put("large", make([]byte, 1<<20))
	complain(t, "Put", err, `section "large": preload: write at `, "operation not permitted")
	complain(t, "the next", b.Put("next", nil), `section "large"`)
	complain(t, "Dir", b.Dir("next", fstest.MapFS{}), `section "large"`)
	complain(t, "Seal", b.Seal(), `section "large"`)
	d, err := Local(func(b *Builder) error { return errors.New("no such database") })
	complain(t, "Local", err, "no such database")
	if d != nil {
		t.Error("there is data")
	}
}

func TestNewBuilderRefuses(t *testing.T) {
	unsealable, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(unsealable)
	_, err = NewBuilder(unsealable)
	complain(t, "memfd without sealing", err, "is sealed already (0x1), want a memfd without seals, made with MFD_ALLOW_SEALING")

	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = NewBuilder(int(f.Fd()))
	complain(t, "file", err, "cannot be sealed: it is no memfd")

	used := newMemory(t)
	defer unix.Close(used)
	if err := writeAt(used, []byte("something"), 0); err != nil {
		t.Fatal(err)
	}
	_, err = NewBuilder(used)
	complain(t, "used", err, "has 9 bytes already, want an empty memfd")
	if _, err := NewBuilder(-1); !errors.Is(err, unix.EBADF) {
		t.Errorf("no descriptor: %v", err)
	}
}

// TestSealRefuses: a mapping that could still be written through.
func TestSealRefuses(t *testing.T) {
	b := newBuilder(t)
	if err := b.Put("x", []byte("x")); err != nil {
		t.Fatal(err)
	}
	memory, err := unix.Mmap(b.fd, 0, 1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	complain(t, "Seal", b.Seal(), "something has mapped the memory for writing")
	if err := unix.Munmap(memory); err != nil {
		t.Fatal(err)
	}
	if err := b.Seal(); err != nil {
		t.Errorf("after that: %v", err)
	}
}

// TestSealChecks: somebody has written into a section meanwhile.
func TestSealChecks(t *testing.T) {
	b := newBuilder(t)
	if err := b.Put("x", []byte("right")); err != nil {
		t.Fatal(err)
	}
	if err := writeAt(b.fd, []byte("w"), b.sections[0].At); err != nil {
		t.Fatal(err)
	}
	complain(t, "Seal", b.Seal(), `the checksum of section "x" is 0x`, "want 0x")
}

func TestSealed(t *testing.T) {
	d := preloaded(t, func(b *Builder) error { return b.Put("x", make([]byte, 10_000)) })
	if err := writeAt(d.fd, []byte("y"), 100); !errors.Is(err, unix.EPERM) {
		t.Errorf("write: %v", err)
	}
	for _, size := range []int64{0, 1 << 20} {
		if err := unix.Ftruncate(d.fd, size); !errors.Is(err, unix.EPERM) {
			t.Errorf("truncate to %d: %v", size, err)
		}
	}
	if _, err := unix.Mmap(d.fd, 0, 1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); !errors.Is(err, unix.EPERM) {
		t.Errorf("mmap: %v", err)
	}
	if err := unix.Mprotect(d.memory, unix.PROT_READ|unix.PROT_WRITE); !errors.Is(err, unix.EACCES) {
		t.Errorf("mprotect: %v", err)
	}
	if err := unix.Fallocate(d.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096); !errors.Is(err, unix.EPERM) {
		t.Errorf("punch hole: %v", err)
	}
}

// TestPutAtOnce is for the race detector: sections of several goroutines either
// are written or say why not.
func TestPutAtOnce(t *testing.T) {
	done := make(chan string)
	d := preloaded(t, func(b *Builder) error {
		for i := range 8 {
			go func() {
				name := fmt.Sprint("section ", i)
				for {
					err := b.Put(name, bytes.Repeat([]byte{byte(i)}, 100_000))
					if err == nil {
						done <- name
						return
					}
					if !strings.Contains(err.Error(), "one at a time") {
						t.Error(err)
					}
					runtime.Gosched()
				}
			}()
		}
		for range 8 {
			<-done
		}
		return nil
	})
	for i := range 8 {
		p, err := d.Bytes(fmt.Sprint("section ", i))
		if err != nil || !bytes.Equal(p, bytes.Repeat([]byte{byte(i)}, 100_000)) {
			t.Errorf("section %d: %d bytes, %v", i, len(p), err)
		}
	}
}
