package main

import (
	"io"
	"net/http"
	"os"
	"sync"
)

// hoard is what a faulty application keeps. It is there to show that soak finds
// what it looks for.
type hoard struct {
	mu            sync.Mutex
	calls, hellos int
	files         []*os.File
	heap          [][]byte
}

// innocent is how many requests are served well, so that what is at rest before
// the traffic is without fault.
const innocent = 200

// spoil serves like next, but now and then cuts an answer, changes a byte,
// starts a goroutine that never ends, or keeps a file, a descriptor or memory.
func (h *hoard) spoil(next http.Handler, bodies string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.calls++
		if h.calls > innocent {
			h.keepSomething(bodies)
		}
		if h.calls > innocent && r.URL.Path == "/hello" {
			h.hellos++
		}
		turn := h.hellos
		h.mu.Unlock()
		switch {
		case r.URL.Path == "/hello" && turn%8 == 1:
			panic(http.ErrAbortHandler)
		case r.URL.Path == "/hello" && turn%8 == 5:
			_, _ = io.WriteString(w, "Hello, world!")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func (h *hoard) keepSomething(bodies string) {
	switch h.calls % 64 {
	case 10:
		go func() { <-make(chan struct{}) }()
	case 20:
		if file, err := os.Open(os.DevNull); err == nil {
			h.files = append(h.files, file)
		}
	case 30:
		if len(h.heap) < 2 {
			h.heap = append(h.heap, make([]byte, heapTolerance))
		}
	case 40:
		if file, err := os.CreateTemp(bodies, "forgotten-"); err == nil {
			file.Close()
		}
	}
}
