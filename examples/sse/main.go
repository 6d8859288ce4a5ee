// Command sse sends Server-Sent Events from Catamount. From the folder examples:
//
//	go run ./sse
//	curl -iN http://127.0.0.1:9292/
//
// Each stream holds a place of the thread pool as long as it lasts: MaxThreads
// must be larger than the number of streams.
package main

import (
	"fmt"
	"log"
	"net/http"
	"sync"
	"time"

	"github.com/catamount-server/catamount"
)

func main() {
	b := newBroker()
	go func() {
		for now := range time.Tick(time.Second) {
			b.publish(now.Format(time.TimeOnly))
		}
	}()
	server := &catamount.Server{Addr: "127.0.0.1:9292", Handler: b, MaxThreads: 10_000}
	server.RegisterOnShutdown(b.end)
	log.Fatal(server.ListenAndServe())
}

// broker passes each event on to all streams.
type broker struct {
	mu      sync.Mutex
	streams map[chan string]bool
	end     func() // ends all streams
	ended   chan struct{}
}

func newBroker() *broker {
	b := &broker{streams: make(map[chan string]bool), ended: make(chan struct{})}
	b.end = sync.OnceFunc(func() { close(b.ended) })
	return b
}

func (b *broker) publish(event string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for stream := range b.streams {
		select {
		case stream <- event:
		default: // a client that reads too slowly misses events
		}
	}
}

// ServeHTTP is a stream.
func (b *broker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	events := make(chan string, 16)
	b.mu.Lock()
	b.streams[events] = true
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.streams, events)
	}()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	for http.NewResponseController(w).Flush() == nil {
		select {
		case event := <-events:
			fmt.Fprintf(w, "data: %s\n\n", event)
		case <-r.Context().Done(): // the client has left
			return
		case <-b.ended:
			return
		}
	}
}
