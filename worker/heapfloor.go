package worker

import (
	"math"
	"os"
	"runtime/debug"
)

// heapFloor returns n bytes that nobody ever touches, so that they take no
// memory, but that the garbage collector counts as in use. It collects when the
// heap has doubled: a server whose live heap is two megabytes would be collected
// every four, which is every few thousand requests, and spend a fifth of its
// time on it. With the floor the next collection comes when as much garbage as
// the floor has gathered. docs/decisions/0002 has the figures.
//
// Who has set GOGC or a memory limit has decided otherwise: then there is none.
func heapFloor(n int) []byte {
	if n <= 0 || os.Getenv("GOGC") != "" || debug.SetMemoryLimit(-1) != math.MaxInt64 {
		return nil
	}
	return make([]byte, n)
}
