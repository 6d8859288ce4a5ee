package main

import (
	"crypto/sha256"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// app is the application: handlers as they are in the world, good and bad.
type app struct {
	directory string
	faulty    bool
	hoard     hoard

	calls, panics, late, lateTaken, sawGone, sockets, undelivered atomic.Int64
}

// appCounts is what the application has counted.
type appCounts struct {
	Calls     int64 `json:"calls"`      // requests that reached a handler
	Panics    int64 `json:"panics"`     // and those in which one panicked or ended its goroutine
	Late      int64 `json:"late"`       // attempts to write after the handler returned
	LateTaken int64 `json:"late_taken"` // those that were no error
	SawGone   int64 `json:"saw_gone"`   // handlers that were told that their client had left
	Sockets   int64 `json:"sockets"`    // open WebSockets
	// Undelivered counts the answers of which Server.OnWriteFailure told.
	Undelivered int64 `json:"undelivered"`
}

func (a *app) counts() appCounts {
	return appCounts{a.calls.Load(), a.panics.Load(), a.late.Load(), a.lateTaken.Load(), a.sawGone.Load(), a.sockets.Load(), a.undelivered.Load()}
}

func (a *app) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/hello", hello)
	mux.HandleFunc("/echo", echo)
	mux.HandleFunc("/slow", a.slow)
	mux.HandleFunc("/stream", stream)
	mux.HandleFunc("/big", big)
	mux.HandleFunc("/file", a.file)
	mux.HandleFunc("/upload", upload)
	mux.HandleFunc("/live/upload", upload)
	mux.HandleFunc("/live/echo", liveEcho)
	mux.HandleFunc("/live/part", livePart)
	mux.HandleFunc("/panic", a.panic)
	mux.HandleFunc("/late", a.lateWriter)
	mux.HandleFunc("/fields", badFields)
	mux.HandleFunc("/socket", a.socket)
	var next http.Handler = mux
	if a.faulty {
		next = a.hoard.spoil(mux, bodiesIn(a.directory))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.calls.Add(1)
		if id := r.Header.Get(idField); id != "" {
			w.Header().Set(idField, id)
		}
		next.ServeHTTP(w, r)
	})
}

const (
	idField       = "X-Id"       // comes back, so that no answer can take another's place
	checksumField = "X-Checksum" // of an echo's body
	trailerField  = "X-Trailer"  // a request's trailer; comes back as a field
	helloText     = "Hello, World!"
)

// number reads a number from the query; 0 without.
func number(r *http.Request, name string) int {
	n, _ := strconv.Atoi(r.FormValue(name))
	return n
}

// asked is the body that a request asks for.
func asked(r *http.Request) content { return content{number(r, "start"), number(r, "n")} }

func checksum(b []byte) string { return strconv.FormatUint(uint64(crc32.ChecksumIEEE(b)), 16) }

func declare(w http.ResponseWriter, r *http.Request, n int) {
	if r.FormValue("declare") != "" {
		w.Header().Set("Content-Length", strconv.Itoa(n))
	}
}

func hello(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, helloText)
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set(checksumField, checksum(body))
	if trailer := r.Trailer.Get(trailerField); trailer != "" {
		w.Header().Set(trailerField, trailer)
	}
	query := r.URL.Query() // not FormValue: that would read the body
	if query.Has("declare") {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	piece, _ := strconv.Atoi(query.Get("piece"))
	for piece = max(piece, 1); len(body) > 0; {
		n, err := w.Write(body[:min(piece, len(body))])
		if err != nil {
			return
		}
		body = body[n:]
	}
}

// slow takes its time. Asked to watch, it ends when its client leaves.
func (a *app) slow(w http.ResponseWriter, r *http.Request) {
	var gone <-chan struct{}
	if r.FormValue("watch") != "" {
		gone = r.Context().Done()
	}
	timer := time.NewTimer(time.Duration(number(r, "ms")) * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-gone:
		a.sawGone.Add(1)
	}
	_, _ = io.WriteString(w, helloText)
}

// stream flushes every piece.
func stream(w http.ResponseWriter, r *http.Request) {
	flusher := flushingWriter{w, http.NewResponseController(w)}
	_ = asked(r).writeTo(flusher, number(r, "piece"))
}

type flushingWriter struct {
	io.Writer
	controller *http.ResponseController
}

func (f flushingWriter) Write(p []byte) (int, error) {
	n, err := f.Writer.Write(p)
	if err == nil {
		err = f.controller.Flush()
	}
	return n, err
}

func big(w http.ResponseWriter, r *http.Request) {
	body := asked(r)
	declare(w, r, body.size)
	_ = body.writeTo(w, number(r, "piece"))
}

// file sends a part of a file, which the server can do without reading it.
func (a *app) file(w http.ResponseWriter, r *http.Request) {
	body := asked(r)
	f, err := os.Open(patternIn(a.directory))
	if err == nil {
		defer f.Close()
		_, err = f.Seek(int64(body.start), io.SeekStart)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	declare(w, r, body.size)
	_, _ = io.CopyN(w, f, int64(body.size))
}

// isLive chooses requests whose handlers read the body as it comes.
func isLive(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/live/") }

// liveEcho sends back what it has read while more is still to come.
func liveEcho(w http.ResponseWriter, r *http.Request) {
	buffer := make([]byte, 8<<10)
	for turn := 0; ; turn++ {
		n, err := r.Body.Read(buffer)
		if _, err := w.Write(buffer[:n]); err != nil {
			return
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			panic(http.ErrAbortHandler) // what was sent is not all of it
		}
		if turn%3 == 0 {
			_ = http.NewResponseController(w).Flush()
		}
	}
}

// livePart reads a part of the body and leaves the rest to the server.
func livePart(w http.ResponseWriter, r *http.Request) {
	take, _ := strconv.Atoi(r.URL.Query().Get("take"))
	part := make([]byte, min(max(take, 0), maxBody))
	if _, err := io.ReadFull(r.Body, part); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = io.WriteString(w, checksum(part))
}

// upload answers with length and hash of the body, which it never has as a
// whole.
func upload(w http.ResponseWriter, r *http.Request) {
	hash := sha256.New()
	n, err := io.Copy(hash, r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = fmt.Fprintf(w, "%d %x", n, hash.Sum(nil))
}

// panic fails in one of the ways in which handlers do, after some of the answer.
func (a *app) panic(w http.ResponseWriter, r *http.Request) {
	body := asked(r)
	if how := r.FormValue("how"); how == "short" {
		w.Header().Set("Content-Length", strconv.Itoa(body.size+1))
		_ = body.writeTo(w, period)
		return
	}
	if body.size > 0 {
		_ = body.writeTo(w, period)
		_ = http.NewResponseController(w).Flush()
	}
	switch r.FormValue("how") {
	case "abort":
		panic(http.ErrAbortHandler) // net/http's way to cut an answer without a log line
	case "exit":
		a.panics.Add(1)
		runtime.Goexit()
	default:
		a.panics.Add(1)
		panic("as asked for")
	}
}

// lateWriter leaves a goroutine behind that uses request and answer when both
// are over: no byte of it may reach anybody.
func (a *app) lateWriter(w http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(w, helloText)
	go func() {
		<-r.Context().Done()
		defer a.late.Add(1)
		w.Header().Set("X-Late", "1")
		w.WriteHeader(http.StatusTeapot)
		_, wrote := io.WriteString(w, "LATE LATE LATE")
		flushed := http.NewResponseController(w).Flush()
		_, _, hijacked := http.NewResponseController(w).Hijack()
		_, read := r.Body.Read(make([]byte, 1))
		if wrote == nil || flushed == nil || hijacked == nil || read == nil {
			a.lateTaken.Add(1)
		}
	}()
}

// badFields sets fields that must not get through as they are.
func badFields(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Split", "a\r\nX-Injected: 1\r\n\r\nHTTP/1.1 200 OK")
	w.Header().Set("X-Nul", "a\x00b")
	w.Header()["X Space"] = []string{"1"}
	w.Header()["X-Injected: 1\r\nX-Too"] = []string{"1"}
	_, _ = io.WriteString(w, helloText)
}
