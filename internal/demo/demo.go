package demo

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"
)

// Options tells the app about the process and the server it runs in. The zero
// value is ready to use.
type Options struct {
	// PlaceOf returns the place of the thread pool that serves r. When nil,
	// or when it answers false, answers show no place.
	PlaceOf func(r *http.Request) (place int, ok bool)

	Worker  int    // index of the worker, 0 when there is only one process
	Version string // of the server, shown on the page
}

// app holds what the endpoints share.
type app struct {
	Options
	pid     int
	started time.Time
	served  atomic.Uint64
}

// Handler returns the demo app. It may be used by any number of servers and
// goroutines at the same time.
func Handler(opts Options) http.Handler {
	a := &app{Options: opts, pid: os.Getpid(), started: time.Now()}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", a.page)
	mux.HandleFunc("/echo", a.echo)
	mux.HandleFunc("GET /slow", a.slow)
	mux.HandleFunc("GET /stream", a.stream)
	mux.HandleFunc("GET /upload", a.uploadForm)
	mux.HandleFunc("POST /upload", a.upload)
	mux.HandleFunc("PUT /upload", a.upload)
	mux.HandleFunc("GET /info", a.info)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.served.Add(1)
		// Who served is the point of every answer: a cached one would lie.
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		mux.ServeHTTP(w, r)
	})
}

// identity says who served a request.
type identity struct {
	PID    int  `json:"pid"`
	Worker int  `json:"worker"`
	Place  *int `json:"place"` // null when the server has no places
}

func (a *app) identify(r *http.Request) identity {
	id := identity{PID: a.pid, Worker: a.Worker}
	if a.PlaceOf != nil {
		if place, ok := a.PlaceOf(r); ok {
			id.Place = &place
		}
	}
	return id
}

func (id identity) String() string {
	s := fmt.Sprintf("pid %d, worker %d", id.PID, id.Worker)
	if id.Place != nil {
		s += fmt.Sprintf(", place %d", *id.Place)
	}
	return s
}

func (a *app) info(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, struct {
		identity
		Version    string  `json:"version,omitempty"`
		Go         string  `json:"go"`
		GOMAXPROCS int     `json:"gomaxprocs"`
		Goroutines int     `json:"goroutines"`
		Uptime     float64 `json:"uptime_seconds"`
		Served     uint64  `json:"requests_served"`
		Protocol   string  `json:"protocol"`
		Peer       string  `json:"peer"`
	}{
		a.identify(r), a.Version, runtime.Version(), runtime.GOMAXPROCS(0), runtime.NumGoroutine(),
		time.Since(a.started).Seconds(), a.served.Load(), r.Proto, r.RemoteAddr,
	})
}

func writeJSON(w http.ResponseWriter, v any) {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(text, '\n'))
}

// number reads the query parameter name, which must lie in [low, high]. It
// answers the request itself, with 400 and the reason, when it does not.
func number(w http.ResponseWriter, r *http.Request, name string, def, low, high int) (n int, ok bool) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return def, true
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high {
		http.Error(w, fmt.Sprintf("%s=%q: want a whole number from %d to %d", name, text, low, high),
			http.StatusBadRequest)
		return 0, false
	}
	return n, true
}
