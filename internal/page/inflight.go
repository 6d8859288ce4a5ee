package page

import (
	"strings"
	"sync/atomic"
)

const (
	// InFlightPlaces is how many requests of a worker can be noted at once.
	InFlightPlaces = 256
	// textBytes is how much of a request's method and path is kept.
	textBytes = 116
)

// inFlight notes what one place of a worker's pool serves. The length and the
// text are the one exception to atomic access: they are written before since
// says that they count, and others look at them for show, or when the worker is
// dead.
type inFlight struct {
	since  atomic.Int64 // on the clock of Now; 0: nothing
	length uint32       // of text
	text   [textBytes]byte
}

// Request is a request that a worker is serving, or was when it died.
type Request struct {
	Place int   // in its pool, from 0
	Since int64 // on the clock of Now
	// Text is the method and the path, as the client wrote them, cut at 116
	// bytes. It is without the query and without the host, which may hold secrets.
	Text string
}

// Begin notes the request that a place of the worker's pool begins to serve. A
// place has one caller at a time, who calls End before Begin again. Places from
// InFlightPlaces on are not noted.
func (s *Slot) Begin(place int, method, target string) {
	if uint(place) >= InFlightPlaces {
		return
	}
	f := &s.inFlight[place]
	n := copy(f.text[:], method)
	if n < textBytes {
		f.text[n] = ' '
		n++
	}
	n += copy(f.text[n:], pathOf(target, textBytes-n))
	f.length = uint32(n)
	f.since.Store(Now())
}

// End notes that the place is done with its request.
func (s *Slot) End(place int) {
	if uint(place) < InFlightPlaces {
		s.inFlight[place].since.Store(0)
	}
}

// pathOf is the path in a request's target, of which the first most bytes are
// of interest: that of /path?query and of http://user:password@host/path?query.
func pathOf(target string, most int) string {
	if target == "" || target[0] != '/' {
		_, rest, _ := strings.Cut(target, "://")
		slash := strings.IndexAny(rest, "/?")
		if slash < 0 {
			return ""
		}
		target = rest[slash:]
	}
	if len(target) > most {
		target = target[:most]
	}
	if query := strings.IndexByte(target, '?'); query >= 0 {
		target = target[:query]
	}
	return target
}

// Requests are those that the worker is serving, by place; of a worker that has
// died, those that died with it, until Reset. While the worker lives, a text
// may be half that of the request before; and it is the master that asks, from
// its own process.
func (s *Slot) Requests() []Request {
	var requests []Request
	for place := range s.inFlight {
		f := &s.inFlight[place]
		since := f.since.Load()
		if since == 0 {
			continue
		}
		text := string(f.text[:min(f.length, textBytes)])
		if f.since.Load() == since { // still the same
			requests = append(requests, Request{place, since, text})
		}
	}
	return requests
}
