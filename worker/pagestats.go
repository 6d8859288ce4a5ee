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
	backlog, backlogMax, running, reactorMax atomic.Int64
	heldMemory, heldFiles, heldBodies        atomic.Int64
	connections                              [numStates]atomic.Int64
}

func (g *gauges) reset() {
	for _, word := range []*atomic.Int64{&g.backlog, &g.backlogMax, &g.running, &g.reactorMax, &g.heldMemory, &g.heldFiles, &g.heldBodies} {
		word.Store(0)
	}
	for i := range g.connections {
		g.connections[i].Store(0)
	}
}

func statsIn(slot *page.Slot) *slotStats { return (*slotStats)(slot.Stats()) }

// ReadStats returns what the shared page says of a worker: counters as they are,
// gauges that are up to a second old, but for BusyThreads. The counters are those
// of the slot: its earlier workers are in them.
func ReadStats(slot *page.Slot) Stats {
	kept := statsIn(slot)
	st, g := kept.counters.snapshot(), &kept.gauges
	st.Backlog, st.BacklogMax, st.Running = int(g.backlog.Load()), int(g.backlogMax.Load()), int(g.running.Load())
	st.BusyThreads, st.MaxThreads = int(slot.Busy.Load()), int(slot.Places.Load())
	st.PoolCapacity = max(st.MaxThreads-st.BusyThreads, 0)
	st.ReactorMax = int(g.reactorMax.Load())
	st.HeldMemory, st.HeldFiles, st.HeldBodies = g.heldMemory.Load(), g.heldFiles.Load(), g.heldBodies.Load()
	for state := range g.connections {
		if n := g.connections[state].Load(); n > 0 {
			st.Connections[State(state).String()] = int(n)
		}
	}
	return st
}

// Add returns the sum of two workers, or of a worker and what went before it.
// Highest values are added as well: they were not of the same moment, so that
// the sum is what they can have been at most.
func Add(a, b Stats) Stats {
	sum := Stats{}
	to, from := reflect.ValueOf(&sum).Elem(), [2]reflect.Value{reflect.ValueOf(a), reflect.ValueOf(b)}
	for i := range to.NumField() {
		for _, v := range from {
			addField(to.Field(i), v.Field(i))
		}
	}
	return sum
}

func addField(to, v reflect.Value) {
	switch v.Kind() {
	case reflect.Int, reflect.Int64:
		to.SetInt(to.Int() + v.Int())
	case reflect.Uint64:
		to.SetUint(to.Uint() + v.Uint())
	case reflect.Map:
		if to.IsNil() {
			to.Set(reflect.MakeMap(to.Type()))
		}
		for _, key := range v.MapKeys() {
			n := reflect.New(to.Type().Elem()).Elem()
			if old := to.MapIndex(key); old.IsValid() {
				n.Set(old)
			}
			addField(n, v.MapIndex(key))
			to.SetMapIndex(key, n)
		}
	case reflect.Slice:
		buckets, _ := reflect.TypeAssert[[]WaitBucket](to)
		more, _ := reflect.TypeAssert[[]WaitBucket](v)
		if buckets == nil {
			buckets = make([]WaitBucket, waitBuckets)
		}
		for i := range min(len(buckets), len(more)) {
			buckets[i].Below = max(buckets[i].Below, more[i].Below)
			buckets[i].Count += more[i].Count
		}
		to.Set(reflect.ValueOf(buckets))
	}
}

// publishConnections renews the gauges that only the reactor knows. It runs on
// the reactor's goroutine.
func (s *Server) publishConnections(g *gauges) {
	var counts [numStates]int64
	s.reactor.Each(func(sl *slot, owned bool) {
		if owned {
			counts[StateQueued]++
		} else {
			counts[sl.Value.state]++
		}
	})
	for state, n := range counts {
		g.connections[state].Store(n)
	}
	g.reactorMax.Store(int64(s.reactor.SizeMax()))
}

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
