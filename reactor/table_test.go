package reactor

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// use claims a slot as Add does.
func (t *table[T]) use(fd int32, generation uint32) *Slot[T] {
	s := t.claim(fd)
	s.fd, s.generation = fd, generation
	return s
}

func TestTableKnowsNothing(t *testing.T) {
	var table table[int]
	for _, fd := range []int32{0, 1, chunkSize, 1 << 30} {
		if table.get(fd) != nil {
			t.Errorf("get(%d) of an empty table is not nil", fd)
		}
	}
	table.use(3*chunkSize, 1)
	for _, fd := range []int32{0, 3*chunkSize - 1, 4 * chunkSize} {
		if table.get(fd) != nil {
			t.Errorf("get(%d) found a chunk that nobody claimed", fd)
		}
	}
	if s := table.get(3*chunkSize + 1); s == nil || s.generation != 0 {
		t.Error("a neighbour of a slot in use is not a free slot")
	}
}

func TestTableFreesValues(t *testing.T) {
	var table table[*int]
	keep := table.use(0, 1)
	s := table.use(1, 2)
	s.Value = new(int)
	s.parkersOf()
	table.free(1)
	if s.Value != nil || s.parkers.Load() != nil || s.generation != 0 {
		t.Errorf("a free slot keeps something alive: %+v", s.Value)
	}
	if again := table.claim(1); again != s || table.get(0) != keep {
		t.Error("slots moved")
	}
}

func TestTableChunks(t *testing.T) {
	var table table[int]
	for fd := range int32(3 * chunkSize) {
		table.use(fd, 1)
	}
	first, second := table.chunks[0], table.chunks[1]
	for fd := range int32(chunkSize) {
		table.free(fd)
		if dropped := table.chunks[0] == nil; dropped != (fd == chunkSize-1) {
			t.Fatalf("chunk dropped: %t after %d of %d slots were freed", dropped, fd+1, chunkSize)
		}
	}
	if table.spare != first {
		t.Fatal("the emptied chunk is not the spare one")
	}
	for fd := range int32(chunkSize) {
		table.free(chunkSize + fd)
	}
	if table.spare != second {
		t.Error("two chunks empty: the last is to be kept, the other left to the collector")
	}
	// The spare one serves any place, and only once.
	if s := table.use(0, 2); s != &second.slots[0] || table.spare != nil {
		t.Error("the spare chunk was not reused")
	}
	if s := table.use(chunkSize, 2); s == &second.slots[0] || table.chunks[1] == second {
		t.Error("one chunk in two places")
	}
	if table.size != chunkSize+2 {
		t.Errorf("size %d, want %d", table.size, chunkSize+2)
	}
}

// At the edge of a chunk connections come and go without allocation.
func TestTableEdgeOfChunk(t *testing.T) {
	var table table[int]
	for fd := range int32(chunkSize) {
		table.use(fd, 1)
	}
	table.use(chunkSize, 1)
	table.free(chunkSize)
	allocations := testing.AllocsPerRun(100, func() {
		table.use(chunkSize, 2)
		table.free(chunkSize)
	})
	if allocations != 0 {
		t.Errorf("%v allocations for each client that comes and goes", allocations)
	}
}

// The descriptors of a server grow one by one: the array of chunks must grow in
// steps, not with each chunk.
func TestTableGrowth(t *testing.T) {
	const chunks = 1 << 10
	var table table[int]
	growths, last := 0, 0
	for index := range int32(chunks) {
		table.use(index*chunkSize, 1)
		if len(table.chunks) != last {
			growths++
			last = len(table.chunks)
		}
	}
	if growths > 20 {
		t.Errorf("the array grew %d times for %d chunks", growths, chunks)
	}
	for index := range int32(chunks) {
		if s := table.get(index * chunkSize); s == nil || s.fd != index*chunkSize {
			t.Fatalf("slot %d was lost in growing", index*chunkSize)
		}
	}
}

func TestTableAgainstMap(t *testing.T) {
	var table table[int32]
	model := map[int32]uint32{}
	random := rand.New(rand.NewPCG(1, 2))
	for step := range uint32(20_000) {
		fd := random.Int32N(10 * chunkSize)
		if step%4000 > 3000 { // a wave goes
			fd = random.Int32N(9 * chunkSize)
		}
		if _, used := model[fd]; used {
			if random.IntN(3) > 0 || step%4000 > 3000 {
				table.free(fd)
				delete(model, fd)
			}
		} else if step%4000 <= 3000 {
			s := table.use(fd, step+1)
			if s.Value != 0 || s.parkers.Load() != nil {
				t.Fatalf("slot %d is not fresh", fd)
			}
			s.Value = fd
			model[fd] = step + 1
		}
		if step%500 != 0 {
			continue
		}
		found := map[int32]uint32{}
		table.each(func(s *Slot[int32]) {
			if s.Value != s.fd || table.get(s.fd) != s {
				t.Fatalf("slot %d is out of place", s.fd)
			}
			found[s.fd] = s.generation
		})
		if !maps.Equal(found, model) || table.size != len(model) {
			t.Fatalf("each found %d, size is %d, want %d", len(found), table.size, len(model))
		}
	}
}

// each is how a server closes everybody: f may free the slot it is given.
func TestTableEachMayFree(t *testing.T) {
	var table table[int]
	var want []int32
	for fd := int32(0); fd < 5*chunkSize; fd += 7 {
		table.use(fd, 1)
		want = append(want, fd)
	}
	var got []int32
	table.each(func(s *Slot[int]) {
		got = append(got, s.fd)
		table.free(s.fd)
	})
	if !slices.Equal(got, want) || table.size != 0 {
		t.Errorf("each visited %d of %d, %d left", len(got), len(want), table.size)
	}
}
