package reactor

// chunkSize slots are allocated together: one object for the collector to
// look at instead of sixty-four, and no map.
const chunkSize = 64

type chunk[T any] struct {
	slots [chunkSize]Slot[T]
	live  int
}

// table finds a slot by its descriptor. Descriptors are small and dense, the
// kernel always hands out the lowest, so an array is a perfect hash.
type table[T any] struct {
	chunks []*chunk[T]
	spare  *chunk[T] // the last emptied one, against going back and forth
	size   int
}

// get returns the slot of fd, or nil where there never was one. The slot may
// be free.
func (t *table[T]) get(fd int32) *Slot[T] {
	index := int(uint32(fd) / chunkSize)
	if index >= len(t.chunks) || t.chunks[index] == nil {
		return nil
	}
	return &t.chunks[index].slots[uint32(fd)%chunkSize]
}

// claim returns a fresh slot for fd.
func (t *table[T]) claim(fd int32) *Slot[T] {
	index := int(uint32(fd) / chunkSize)
	if index >= len(t.chunks) {
		grown := make([]*chunk[T], max(2*len(t.chunks), index+1))
		copy(grown, t.chunks)
		t.chunks = grown
	}
	c := t.chunks[index]
	if c == nil {
		if c, t.spare = t.spare, nil; c == nil {
			c = new(chunk[T])
		}
		t.chunks[index] = c
	}
	c.live++
	t.size++
	return &c.slots[uint32(fd)%chunkSize]
}

// free empties the slot of fd. A chunk without clients is let go, so that a
// wave of connections does not stay in memory when it has passed; pool
// goroutines that still hold a pointer into it keep it alive, harmlessly.
func (t *table[T]) free(fd int32) {
	index := int(uint32(fd) / chunkSize)
	c := t.chunks[index]
	s := &c.slots[uint32(fd)%chunkSize]
	var zero T
	s.Value = zero
	s.generation = 0
	s.parkers.Store(nil)
	t.size--
	if c.live--; c.live == 0 {
		t.chunks[index] = nil
		t.spare = c
	}
}

// each calls f for every slot in use.
func (t *table[T]) each(f func(*Slot[T])) {
	for _, c := range t.chunks {
		if c == nil {
			continue
		}
		for i := range c.slots {
			if c.slots[i].generation != 0 {
				f(&c.slots[i])
			}
		}
	}
}
