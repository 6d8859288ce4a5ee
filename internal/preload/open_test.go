package preload

import (
	"bytes"
	"errors"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenRefuses(t *testing.T) {
	// sealed makes memory of what is not written by a Builder.
	sealed := func(t *testing.T, content []byte) int {
		fd := newMemory(t)
		if err := errors.Join(writeAt(fd, content, 0), seal(fd)); err != nil {
			t.Fatal(err)
		}
		return fd
	}
	good := func() []byte {
		d := preloaded(t, func(b *Builder) error { return b.Put("x", []byte("some bytes")) })
		return bytes.Clone(d.memory)
	}()
	changed := func(change func(h *header)) func(*testing.T) int {
		return func(t *testing.T) int {
			var h header
			copy(h.bytes(), good)
			change(&h)
			h.sum = h.checksum()
			return sealed(t, append(h.bytes(), good[headerBytes:]...))
		}
	}
	manifestOf := func(old, new string) func(*testing.T) int {
		return func(t *testing.T) int { return sealed(t, rewritten(t, good, old, new)) }
	}
	for name, c := range map[string]struct {
		fd   func(*testing.T) int
		want string
	}{
		"no memfd": {func(t *testing.T) int {
			f, err := os.Open("/proc/self/exe")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			return fd
		}, "is no memfd"},
		"not sealed":             {func(t *testing.T) int { return newMemory(t) }, "has the seals 0x0, want 0xf: Seal has not been called"},
		"empty":                  {func(t *testing.T) int { return sealed(t, nil) }, "has 0 bytes, want 48 at least"},
		"garbage":                {func(t *testing.T) int { return sealed(t, []byte(strings.Repeat("garbage!", 100))) }, "magic number is 0x2165676162726167, want 0x"},
		"version":                {changed(func(h *header) { h.version = 2 }), "version is 0x2, want 0x1"},
		"size":                   {changed(func(h *header) { h.size = 99 }), "its size is 0x63, want 0x"},
		"manifest at":            {changed(func(h *header) { h.manifestAt = math.MaxUint64 }), "a manifest of "},
		"manifest in the header": {changed(func(h *header) { h.manifestAt = 1; h.manifestBytes = h.size - 1 }), "a manifest of "},
		"header sum": {func(t *testing.T) int {
			p := bytes.Clone(good)
			p[16]++
			return sealed(t, p)
		}, "checksum of the header is 0x"},
		"manifest sum": {func(t *testing.T) int {
			p := bytes.Clone(good)
			p[len(p)-1]++
			return sealed(t, p)
		}, "checksum of the manifest is 0x"},
		"truncated":   {func(t *testing.T) int { return sealed(t, good[:len(good)-1]) }, "its size is 0x"},
		"other arch":  {manifestOf(`"arch":"`+runtime.GOARCH, `"arch":"pdp11`), `it was written on "pdp11", this is "` + runtime.GOARCH},
		"no JSON":     {manifestOf(`{"arch"`, `["arch"`), "manifest: invalid character"},
		"kind":        {manifestOf(`"kind":"bytes"`, `"kind":"poem"`), `unknown kind "poem"`},
		"beyond":      {manifestOf(`"bytes":10`, `"bytes":9223372036854775807`), `section "x": 9223372036854775807 bytes at 64 of 74`},
		"negative":    {manifestOf(`"bytes":10`, `"bytes":-1`), `-1 bytes at 64`},
		"unaligned":   {manifestOf(`"at":64`, `"at":65`), `10 bytes at 65`},
		"in header":   {manifestOf(`"at":64`, `"at":0`), `10 bytes at 0`},
		"no name":     {manifestOf(`"name":"x"`, `"name":""`), `needs a name`},
		"small table": {manifestOf(`"kind":"bytes"`, `"kind":"table","count":100`), `an index of 3424 bytes at 0 of 10`},
		"large table": {manifestOf(`"kind":"bytes"`, `"kind":"table","count":99999999999999999`), `99999999999999999 entries`},
		"no root":     {manifestOf(`"kind":"bytes"`, `"kind":"directory"`), `0 files and directories`},
	} {
		t.Run(name, func(t *testing.T) {
			fd := c.fd(t)
			d, err := Open(fd)
			if err == nil {
				d.Close()
				t.Fatal("it was opened")
			}
			complain(t, name, err, c.want)
			if err := unix.Close(fd); err != nil {
				t.Errorf("the descriptor was not left open: %v", err)
			}
		})
	}
	if _, err := Open(-1); !errors.Is(err, unix.EBADF) {
		t.Errorf("no descriptor: %v", err)
	}
	twice := rewritten(t, good, `"sections":[`, `"sections":[`+string(sectionsOf(t, good))+`,`)
	fd := sealed(t, twice)
	defer unix.Close(fd)
	_, err := Open(fd)
	complain(t, "twice", err, `section "x" is there twice`)
}

// rewritten is memory with another manifest.
func rewritten(t *testing.T, memory []byte, old, new string) []byte {
	t.Helper()
	var h header
	copy(h.bytes(), memory)
	text := strings.Replace(string(memory[h.manifestAt:]), old, new, 1)
	if text == string(memory[h.manifestAt:]) {
		t.Fatalf("there is no %s in %s", old, text)
	}
	return withManifest(memory[headerBytes:h.manifestAt], text)
}

// withManifest is memory with sections and a manifest.
func withManifest(sections []byte, text string) []byte {
	at := uint64(headerBytes + len(sections))
	h := header{magic: magic, version: version, manifestAt: at, manifestBytes: uint64(len(text)),
		size: at + uint64(len(text)), manifestSum: checksum([]byte(text))}
	h.sum = h.checksum()
	return slices.Concat(h.bytes(), sections, []byte(text))
}

// sectionsOf is the inside of the list of sections.
func sectionsOf(t *testing.T, memory []byte) []byte {
	t.Helper()
	_, rest, _ := bytes.Cut(memory, []byte(`"sections":[`))
	inside, _, ok := bytes.Cut(rest, []byte("]"))
	if !ok {
		t.Fatal("there is no list of sections")
	}
	return inside
}
