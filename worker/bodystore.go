package worker

import (
	"fmt"
	"os"

	"github.com/valyala/bytebufferpool"
)

// memoryPool holds the memory of buffered bodies. A pool of its own, because
// bytebufferpool learns one typical size per pool.
var memoryPool bytebufferpool.Pool

const (
	// memoryKeep is the largest buffer worth keeping in a pool.
	memoryKeep = 256 << 10
	// roomWorth is from when on it pays to receive bytes where they stay: less is
	// copied in the time that one more system call takes, to see what follows.
	roomWorth = 8 << 10
)

// stored is the content of a buffered body, in up to three parts: the first
// BodyMemory bytes, then blocks as long as there are some to be had, and the rest
// in a file. Where not even the first block was to be had all of it is in the
// file.
type stored struct {
	budget   *blockBudget
	memory   *bytebufferpool.ByteBuffer
	blocks   []*block // all but the last are full
	inBlocks int64    // bytes
	file     *os.File
	size     int64 // bytes of all parts
}

// store appends p, behind which more bytes are known to come. A p that was
// received where room said is there already.
func (b *stored) store(p []byte, more int64, options *Options) error {
	for len(p) > 0 {
		n, err := b.storeSome(p, more+int64(len(p)), options)
		if err != nil {
			return fmt.Errorf("%w: %w", errBodyStorage, err)
		}
		b.size += int64(n)
		p = p[n:]
	}
	return nil
}

func (b *stored) storeSome(p []byte, total int64, options *Options) (int, error) {
	if b.file != nil {
		return b.file.Write(p)
	}
	if n := b.memoryFor(len(p), total, options); n > 0 {
		if b.memory == nil {
			b.memory = memoryPool.Get()
			// The announced size is believed only as far as bytes have come: a
			// thousand clients that announce much and send little must not
			// cost a thousand times much.
			total = min(total, int64(options.BodyMemory))
			if int64(cap(b.memory.B)) < total && total <= 8*int64(len(p)) {
				b.memory.B = make([]byte, 0, total)
			}
		}
		b.memory.B = appendInPlace(b.memory.B, p[:n])
		return n, nil
	}
	if b.ensureBlock() {
		at := b.inBlocks % blockSize
		part := b.blocks[b.inBlocks/blockSize][at:]
		n := len(appendInPlace(part[:0], p[:min(len(p), len(part))]))
		b.inBlocks += int64(n)
		return n, nil
	}
	if err := b.spill(options); err != nil {
		return 0, err
	}
	return b.file.Write(p)
}

// memoryFor is how much of the next n bytes belongs to the first part. total is
// what is known to come, those included. Without blocks a body that will not fit
// goes to the file from the start.
func (b *stored) memoryFor(n int, total int64, options *Options) int {
	if b.inBlocks > 0 {
		return 0
	}
	room := int64(options.BodyMemory) - b.size
	if total > room && b.budget.total == 0 {
		return 0
	}
	return int(min(int64(n), room))
}

// appendInPlace is append, except that bytes that lie behind b already stay there.
func appendInPlace(b, p []byte) []byte {
	if n := len(b); cap(b)-n >= len(p) && &b[:n+1][n] == &p[0] {
		return b[:n+len(p)]
	}
	return append(b, p...)
}

// ensureBlock reports whether there is room in a block, after it has taken one if
// need be.
func (b *stored) ensureBlock() bool {
	if b.inBlocks < int64(len(b.blocks))*blockSize {
		return true
	}
	block := b.budget.take(len(b.blocks))
	if block == nil {
		return false
	}
	b.blocks = append(b.blocks, block)
	return true
}

// room is where the next bytes of the content may be received, when so many more
// are known to come; nil: where that is not worth it.
func (b *stored) room(more int64, options *Options) []byte {
	if b.file != nil || more < roomWorth {
		return nil
	}
	var room []byte
	switch {
	case b.inBlocks == 0 && b.size < int64(options.BodyMemory):
		if b.memory != nil {
			room = b.memory.B[b.size:min(cap(b.memory.B), options.BodyMemory)]
		}
	case b.ensureBlock():
		room = b.blocks[b.inBlocks/blockSize][b.inBlocks%blockSize:]
	}
	if len(room) < roomWorth {
		return nil
	}
	return room[:min(int64(len(room)), more)]
}

// spill begins the file, with what is in memory if there are no blocks.
func (b *stored) spill(options *Options) error {
	file, err := bodyFile(options.bodyDirectory())
	if err != nil {
		return err
	}
	b.file = file
	if b.memory != nil && len(b.blocks) == 0 {
		_, err = file.Write(b.memory.B)
		b.dropMemory()
	}
	return err
}

// piece returns what is in memory from offset on, as far as it lies together; nil
// where the file begins.
func (b *stored) piece(offset int64) []byte {
	if b.memory != nil {
		if offset < int64(len(b.memory.B)) {
			return b.memory.B[offset:]
		}
		offset -= int64(len(b.memory.B))
	}
	if offset >= b.inBlocks {
		return nil
	}
	i := offset / blockSize
	return b.blocks[i][offset%blockSize : min(blockSize, b.inBlocks-i*blockSize)]
}

// readAt reads some of what there is from offset on, which is less than size.
func (b *stored) readAt(p []byte, offset int64) (int, error) {
	if piece := b.piece(offset); piece != nil || len(p) == 0 {
		return copy(p, piece), nil
	}
	p = p[:min(int64(len(p)), b.size-offset)]
	offset -= b.inBlocks
	if b.memory != nil {
		offset -= int64(len(b.memory.B))
	}
	n, err := b.file.ReadAt(p, offset)
	if n == 0 && err != nil {
		return 0, fmt.Errorf("reading a stored body: %w", err)
	}
	return n, nil
}

// drop gives everything back.
func (b *stored) drop() {
	b.dropMemory()
	b.budget.giveBack(b.blocks)
	b.blocks, b.inBlocks = nil, 0
	if b.file != nil {
		b.file.Close() // unnamed: closing is what removes it
		b.file = nil
	}
}

func (b *stored) dropMemory() {
	if b.memory != nil && cap(b.memory.B) <= memoryKeep {
		memoryPool.Put(b.memory)
	}
	b.memory = nil
}
