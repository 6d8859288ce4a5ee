package worker

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"testing"
	"testing/iotest"
	"time"
)

// received makes a body of so many bytes that come in pieces of the given sizes,
// the last of which repeats. They are received as the reactor does it: where the
// body has room for them, or else somewhere.
func received(t *testing.T, content, framing string, budget *blockBudget, options *Options, sizes ...int) *requestBody {
	t.Helper()
	b := &requestBody{stored: stored{budget: budget}, remaining: int64(len(content))}
	input := content
	if framing == "chunked" {
		b.remaining, input = -1, chunks(content)
	}
	input += "behind"
	for i := 0; ; i++ {
		target := make([]byte, sizes[min(i, len(sizes)-1)])
		if room := b.room(b.remaining, options); room != nil {
			if int64(len(room)) > b.remaining {
				t.Fatalf("room for %d bytes, %d of the body are to come", len(room), b.remaining)
			}
			target = room[:min(len(room), len(target))]
		}
		n := copy(target, input)
		input = input[n:]
		rest, whole, err := b.fill(target[:n], options)
		if err != nil {
			t.Fatal(err)
		}
		if whole {
			if behind := string(rest) + input; behind != "behind" {
				t.Fatalf("behind the body: %q", clip(behind))
			}
			return b
		}
	}
}

// parts is how many bytes of a body are where.
func (b *requestBody) parts(t *testing.T) (memory, blocks, file int64) {
	t.Helper()
	if b.memory != nil {
		memory = int64(len(b.memory.B))
	}
	if b.file != nil {
		info, err := b.file.Stat()
		if err != nil {
			t.Fatal(err)
		}
		file = info.Size()
	}
	return memory, b.inBlocks, file
}

// Whatever the parts, and however the bytes come: they are read as they were
// sent.
func TestBodyParts(t *testing.T) {
	const limit = 10_000
	const share = 4 << 20 / blockShare // four blocks
	for _, size := range []int{1, limit - 1, limit, limit + 1, limit + blockSize, limit + blockSize + 1, limit + share, limit + share + 1, 2 * share} {
		content := pattern(size)
		for name, sizes := range map[string][]int{
			"whole": {3 * share}, "by kilobytes": {1023}, "by the buffer": {readSize}, "byte by byte at the boundary": {limit - 3, 1, 1, 1, 1, 1, 1, readSize},
			"byte by byte in a block": {limit, blockSize - 3, 1, 1, 1, 1, 1, 1, readSize},
		} {
			for _, framing := range []string{"length", "chunked"} {
				for _, total := range []int64{0, 4 << 20} {
					t.Run(fmt.Sprintf("%d %s, %s, %d", size, name, framing, total), func(t *testing.T) {
						budget := &blockBudget{total: total}
						options := &Options{BodyMemory: limit, BodyDirectory: t.TempDir()}
						b := received(t, content, framing, budget, options, sizes...)
						memory, blocks, file := b.parts(t)
						want := [3]int64{min(int64(size), limit), min(int64(max(size-limit, 0)), share), int64(max(size-limit-share, 0))}
						if total == 0 && size > limit {
							want = [3]int64{0, 0, int64(size)}
						} else if total == 0 {
							want = [3]int64{int64(size)}
						}
						if got := [3]int64{memory, blocks, file}; got != want {
							t.Errorf("memory, blocks and file have %d bytes, want %d", got, want)
						}
						readBoth(t, b, content)
						b.release(http.ErrBodyReadAfterClose)
						b.release(http.ErrBodyReadAfterClose)
						if n := budget.used.Load(); n != 0 {
							t.Errorf("%d bytes still count", n)
						}
					})
				}
			}
		}
	}
}

// readBoth reads a body by Read, by WriteTo, and by one after the other.
func readBoth(t *testing.T, b *requestBody, content string) {
	t.Helper()
	check := func(how string, got []byte, err error) {
		t.Helper()
		if string(got) != content || err != nil {
			t.Errorf("%s: %d bytes, %v; want %d", how, len(got), err, len(content))
		}
		if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("%s: at the end Read = %d, %v", how, n, err)
		}
		if n, err := b.WriteTo(io.Discard); n != 0 || err != nil {
			t.Errorf("%s: at the end WriteTo = %d, %v", how, n, err)
		}
		b.offset = 0
	}
	got, err := io.ReadAll(b)
	check("Read", got, err)
	got, err = io.ReadAll(iotest.HalfReader(b))
	check("Read by halves", got, err)
	var written bytes.Buffer
	n, err := io.Copy(&written, b)
	if n != int64(len(content)) {
		t.Errorf("Copy = %d", n)
	}
	check("WriteTo", written.Bytes(), err)
	written.Reset()
	if _, err = io.CopyN(&written, b, int64(len(content)/2)); err == nil {
		_, err = io.Copy(&written, b)
	}
	check("Read, then WriteTo", written.Bytes(), err)
}

// A writer's error ends WriteTo; a reader may go on behind what it was given.
func TestWriteToFails(t *testing.T) {
	content := pattern(3 * blockSize)
	b := received(t, content, "length", &blockBudget{total: 8 << 20}, &Options{BodyMemory: 1000}, readSize)
	for _, test := range []struct {
		w    io.Writer
		want error
	}{{failingWriter{errors.New("full")}, errors.New("full")}, {failingWriter{}, io.ErrShortWrite}} {
		if n, err := b.WriteTo(test.w); n != 10 || err == nil || err.Error() != test.want.Error() {
			t.Errorf("WriteTo = %d, %v; want %v", n, err, test.want)
		}
	}
	if rest, err := io.ReadAll(b); string(rest) != content[1000+blockSize:] || err != nil {
		t.Errorf("then come %d bytes, %v", len(rest), err)
	}
	b.offset = 0
	b.setReadDeadline(time.Unix(1, 0))
	if n, err := b.WriteTo(io.Discard); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline WriteTo = %d, %v", n, err)
	}
	b.release(http.ErrBodyReadAfterClose)
	if n, err := b.WriteTo(io.Discard); n != 0 || err != http.ErrBodyReadAfterClose {
		t.Errorf("after the handler WriteTo = %d, %v", n, err)
	}
}

// failingWriter takes ten bytes.
type failingWriter struct{ err error }

func (w failingWriter) Write(p []byte) (int, error) { return min(len(p), 10), w.err }

// Where the budget is used up by others a body goes to the file, wherever it is
// just then.
func TestBodyAmongOthers(t *testing.T) {
	const limit = 1000
	for _, free := range []int{0, 1, 2, 3} {
		for _, framing := range []string{"length", "chunked"} {
			budget := &blockBudget{total: 64 * blockSize}
			budget.used.Store(int64(64-free) * blockSize)
			content := pattern(limit + 4*blockSize)
			b := received(t, content, framing, budget, &Options{BodyMemory: limit, BodyDirectory: t.TempDir()}, 100_000)
			memory, blocks, file := b.parts(t)
			// Of two left the second would be the last: one is for the others.
			want := int64(map[int]int{1: 1, 2: 1, 3: 2}[free]) * blockSize
			if blocks != want || memory+blocks+file != int64(len(content)) || (memory == 0) != (free == 0) {
				t.Errorf("%d blocks free, %s: %d, %d and %d bytes", free, framing, memory, blocks, file)
			}
			readBoth(t, b, content)
			b.release(http.ErrBodyReadAfterClose)
			if n := budget.used.Load(); n != int64(64-free)*blockSize {
				t.Errorf("%d bytes count", n)
			}
		}
	}
}
