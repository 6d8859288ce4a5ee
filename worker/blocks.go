package worker

import (
	"sync"
	"sync/atomic"
)

// blockSize is the unit in which bodies take memory beyond BodyMemory. One
// client gets as much in a row, see readShare: a fast upload needs a block for
// each turn.
const blockSize = 256 << 10

type block [blockSize]byte

// blockPool keeps blocks that nobody uses until the collector has run twice. So
// it is never larger than what bodies had at once of late, which the budget
// bounds, and a server at rest has none.
var blockPool = sync.Pool{New: func() any { return new(block) }}

// blockShare: a body gets no more than this part of the budget.
const blockShare = 4

// blockBudget is what the bodies of a server may have in blocks, all together.
// The reactor and the places take, whoever ends a body gives back.
type blockBudget struct {
	total int64 // bytes; 0: none
	used  atomic.Int64
}

// take returns a block for a body that has held already, or nil. Beside its share
// of the whole a body gets no more than it leaves to the others: the more is in
// use, the less a single one can have, and whoever comes last still finds some.
func (b *blockBudget) take(held int) *block {
	if b.total == 0 {
		return nil
	}
	free := b.total - b.used.Add(blockSize) + blockSize
	if int64(held+1)*blockSize > min(b.total/blockShare, free) {
		b.used.Add(-blockSize)
		return nil
	}
	return blockPool.Get().(*block)
}

// giveBack takes blocks that nobody reads or fills any more.
func (b *blockBudget) giveBack(blocks []*block) {
	for i, block := range blocks {
		blockPool.Put(block)
		blocks[i] = nil
	}
	b.used.Add(-int64(len(blocks)) * blockSize)
}
