package worker

import (
	"math"
	"os"
	"runtime/debug"
)

// heapFloorShare of a memory limit is what the floor may take at most.
const heapFloorShare = 8

// heapFloor returns n bytes that nobody ever touches, so that they take no
// memory, but that the garbage collector counts as in use. It collects when the
// heap has doubled: a server whose live heap is two megabytes would be collected
// every four, which is every few thousand requests, and spend a fifth of its
// time on it. With the floor the next collection comes when as much garbage as
// the floor has gathered. docs/decisions/0002 has the figures.
//
// Who has set GOGC or a memory limit has decided otherwise: then there is none.
// A limit that a master has worked out (shared) says nothing of that kind, but
// the floor counts against it: it must be small beside it.
func heapFloor(n int, shared bool) []byte {
	if n <= 0 || os.Getenv("GOGC") != "" {
		return nil
	}
	if limit := debug.SetMemoryLimit(-1); limit != math.MaxInt64 && (!shared || int64(n) > limit/heapFloorShare) {
		return nil
	}
	return make([]byte, n)
}
