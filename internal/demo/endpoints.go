package demo

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// echo answers with the request: with its body as it came when there is one,
// else with the request line and the headers as text.
func (a *app) echo(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength == 0 {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(w, "%s %s %s\nHost: %s\n", r.Method, r.RequestURI, r.Proto, r.Host)
		for _, name := range slices.Sorted(maps.Keys(r.Header)) {
			for _, value := range r.Header[name] {
				fmt.Fprintf(w, "%s: %s\n", name, value)
			}
		}
		fmt.Fprintf(w, "\nServed by %v.\n", a.identify(r))
		return
	}

	// A server that does not buffer requests would otherwise take the body
	// away at the first write. One that does may not support it: no matter.
	_ = http.NewResponseController(w).EnableFullDuplex()

	contentType := r.Header.Get("Content-Type")
	if contentType == "" {
		contentType = "application/octet-stream"
	}
	w.Header().Set("Content-Type", contentType)
	// What a stranger's form posts must not run as a script of this site.
	w.Header().Set("Content-Security-Policy", "sandbox")
	w.Header().Set("X-Echo-Method", r.Method)
	w.Header().Set("X-Echo-Served-By", a.identify(r).String())
	if r.ContentLength > 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
	}
	if _, err := io.Copy(w, r.Body); err != nil {
		// Half an echo must not look whole.
		panic(http.ErrAbortHandler)
	}
}

// slow keeps its place of the pool for as long as asked, as a handler that
// waits for a database would.
func (a *app) slow(w http.ResponseWriter, r *http.Request) {
	ms, ok := number(w, r, "ms", 1000, 0, 60_000)
	if !ok {
		return
	}
	if !sleep(r, time.Duration(ms)*time.Millisecond) {
		return
	}
	writeJSON(w, struct {
		identity
		Slept int `json:"slept_ms"`
	}{a.identify(r), ms})
}

// stream sends a line each 200 ms, each flushed on its own.
func (a *app) stream(w http.ResponseWriter, r *http.Request) {
	const pause = 200 * time.Millisecond
	n, ok := number(w, r, "n", 10, 1, 600)
	if !ok {
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	control := http.NewResponseController(w)
	id := a.identify(r)
	for i := 1; i <= n; i++ {
		if i > 1 && !sleep(r, pause) {
			return
		}
		if _, err := fmt.Fprintf(w, "line %d of %d, from %v\n", i, n, id); err != nil {
			return
		}
		if err := control.Flush(); err != nil {
			return
		}
	}
}

// sleep waits for d and reports whether the client is still there: nobody
// should hold a place of the pool for a client that has gone.
func sleep(r *http.Request, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	}
}
