package worker

import (
	"hash/fnv"
	"io"
	"reflect"
	"strconv"
	"sync/atomic"
	"unsafe"

	"github.com/catamount-server/catamount/internal/page"
)

// slotStats is what a worker keeps in the statistics of its slot. It has
// nothing but atomic words: others read it at any time.
type slotStats struct {
	counters counters
	gauges   gauges
}

// gauges are what only the worker itself knows, written about once a second.
type gauges struct {
	backlog, backlogMax, running, poolCapacity, maxThreads, reactorMax atomic.Int64
	heldMemory, heldFiles                                              atomic.Int64
	connections                                                        [numStates]atomic.Int64
}

func (g *gauges) reset() {
	for _, word := range []*atomic.Int64{&g.backlog, &g.backlogMax, &g.running, &g.poolCapacity, &g.maxThreads, &g.reactorMax, &g.heldMemory, &g.heldFiles} {
		word.Store(0)
	}
	for i := range g.connections {
		g.connections[i].Store(0)
	}
}

func statsIn(slot *page.Slot) *slotStats { return (*slotStats)(slot.Stats()) }

// StatsLayout is how this program lays out the statistics of a worker in the
// shared page: another one that counts other things has another fingerprint.
func StatsLayout() page.Layout {
	shape := reflect.TypeFor[slotStats]()
	hash := fnv.New64a()
	describe(hash, shape)
	return page.Layout{StatsBytes: int(unsafe.Sizeof(slotStats{})), Fingerprint: hash.Sum64()}
}

// describe writes names, types and places of all fields.
func describe(w io.Writer, t reflect.Type) {
	switch {
	case t.Kind() == reflect.Struct && t.PkgPath() != "sync/atomic":
		for i := range t.NumField() {
			f := t.Field(i)
			_, _ = io.WriteString(w, f.Name+"@"+strconv.Itoa(int(f.Offset))+" ")
			describe(w, f.Type)
		}
	case t.Kind() == reflect.Array:
		_, _ = io.WriteString(w, "["+strconv.Itoa(t.Len())+"]")
		describe(w, t.Elem())
	default:
		_, _ = io.WriteString(w, t.String()+";")
	}
}
