package worker

import (
	"io"
	"net/http"
)

const (
	unavailableType = "text/plain; charset=utf-8"
	unavailableText = "503 Service Unavailable\n"
)

// makeUnavailable makes a 503 of the server's own in w, which nobody has
// written to; it is in sc then, and still has to be joined. It is made like a
// handler's, so that method, version and what becomes of the connection are
// heeded; w.closeAfter says whether another request may follow.
func (s *Server) makeUnavailable(w *response, sc *scratch, header http.Header) {
	sc.hold = sc.hold[:0]
	w.scratch = sc
	w.header = header
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = io.WriteString(w, unavailableText) // fits what is held back: nothing is sent yet
	w.finish()
}
