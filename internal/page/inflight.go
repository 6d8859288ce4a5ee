package page

import "sync/atomic"

const (
	// InFlightPlaces is how many requests of a worker can be noted at once.
	InFlightPlaces = 256
	// textBytes is how much of a request's method and target is kept.
	textBytes = 112
)

// InFlight notes what one place of a worker's pool serves.
type InFlight struct {
	since  atomic.Int64  // on the clock of Now; 0: nothing
	length atomic.Uint32 // of text
	_      uint32
	text   [textBytes]byte // read only once the worker is dead, or for show
}
