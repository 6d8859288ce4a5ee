package catamount

import (
	"net"
	"net/http"
	"time"

	"github.com/catamount-server/catamount/worker"
)

// Version of Catamount.
const Version = "0.1.0-dev"

// ErrServerClosed is what Serve and ListenAndServe return after Shutdown or
// Close. It is net/http's, so that programs written for that need no change.
var ErrServerClosed = http.ErrServerClosed

// ListenAndServe serves handler on a TCP address, as http.ListenAndServe does.
// A nil handler means http.DefaultServeMux. It always returns an error.
func ListenAndServe(addr string, handler http.Handler) error {
	s := &Server{Addr: addr, Handler: handler}
	err := s.ListenAndServe()
	s.letGo()
	return err
}

// Serve serves handler on a listener, as http.Serve does. It always returns an
// error.
func Serve(l net.Listener, handler http.Handler) error {
	s := &Server{Handler: handler}
	err := s.Serve(l)
	s.letGo()
	return err
}

// PlaceOf returns the place in the thread pool that serves the request, from 0.
// It is false for a request that Catamount does not serve.
func PlaceOf(r *http.Request) (place int, ok bool) {
	place, ok = r.Context().Value(worker.PlaceKey).(int)
	return place, ok
}

// Stats is a snapshot of a Server: see package worker, which says what each field
// counts.
type Stats = worker.Stats

// WriteFailure is what Server.OnWriteFailure is told; package worker has its
// fields.
type WriteFailure = worker.WriteFailure

// Failure is the cause of a failed write; its String is the word in the log and
// in Stats.WriteErrors.
type Failure = worker.Failure

// WaitBucket is a bar of the histogram of queue waits.
type WaitBucket = worker.WaitBucket

// Defaults of Server.
const (
	// DefaultMaxThreads is generous where Puma has 5: goroutines cost little and
	// know no global lock. What it bounds is what the application uses at once.
	DefaultMaxThreads    = 256
	DefaultMaxFastInline = 32
	DefaultBodyMemory    = 112 << 10
	DefaultOutputMemory  = 256 << 10
	DefaultHeapFloor     = 16 << 20

	DefaultBodyMemoryTotal   int64 = 64 << 20
	DefaultOutputMemoryTotal int64 = 64 << 20
	DefaultOutputFile        int64 = 64 << 20
	DefaultOutputFileTotal   int64 = 1 << 30
	DefaultRetryAfter              = time.Second

	DefaultFirstByteTimeout  = 30 * time.Second
	DefaultReadHeaderTimeout = 20 * time.Second
	DefaultBodyIdleTimeout   = 30 * time.Second
	DefaultBodyMinRate       = 500
	DefaultBodyGrace         = 20 * time.Second
	DefaultIdleTimeout       = 75 * time.Second
	DefaultAdvertisedIdle    = 65 * time.Second
	DefaultWriteMinRate      = 500
	DefaultWriteGrace        = 20 * time.Second
	DefaultLingerTimeout     = 2 * time.Second

	DefaultProbeAfter     = 60 * time.Second
	DefaultProbeInterval  = 10 * time.Second
	DefaultProbeCount     = 5
	DefaultTCPUserTimeout = 2 * time.Minute
)
