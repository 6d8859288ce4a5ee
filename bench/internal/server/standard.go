package server

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/catamount-server/catamount"
	"github.com/lesismal/nbio/logging"
	"github.com/lesismal/nbio/nbhttp"
)

// handler returns the http.Handler of an app, for all servers that run one.
func handler(app string, c *content) http.Handler {
	f := map[string]http.HandlerFunc{
		Hello:   sayHello,
		Goodbye: sayHello,
		JSON: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", jsonType)
			w.Write(encodeRecords())
		},
		Upload: func(w http.ResponseWriter, r *http.Request) {
			n, err := io.Copy(io.Discard, r.Body)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			w.Header().Set("Content-Type", plainText)
			io.WriteString(w, strconv.FormatInt(n, 10))
		},
		Download: c.sendDownload,
		File:     func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, c.file) },
		Big: func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == BigPath {
				c.sendDownload(w, r)
				return
			}
			sayHello(w, r)
		},
		Sleep: func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(SleepTime)
			sayHello(w, r)
		},
		Park: func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == ParkPath {
				c.parked.wait()
			}
			sayHello(w, r)
		},
	}[app]
	return f
}

func sayHello(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", plainText)
	io.WriteString(w, helloBody)
}

func (c *content) sendDownload(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", binaryType)
	w.Header().Set("Content-Length", strconv.Itoa(len(c.download)))
	w.Write(c.download)
}

// quiet logs what must not be overlooked in a run.
func quiet() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
}

func serveCatamount(l net.Listener, spec Spec, c *content) error {
	s := &catamount.Server{Handler: handler(spec.App, c), MaxThreads: spec.Threads, Logger: quiet()}
	return s.Serve(l)
}

// In blocking mode connections are kept alive, other than by default: else it
// would be compared by the price of new connections.
func serveBlocking(l net.Listener, spec Spec, c *content) error {
	s := &catamount.Server{Handler: handler(spec.App, c), MaxThreads: spec.Threads, Logger: quiet(),
		QueueRequests: new(false), EnableKeepAlives: new(true)}
	return s.Serve(l)
}

func serveStandard(l net.Listener, spec Spec, c *content) error {
	return http.Serve(l, handler(spec.App, c))
}

func serveNbio(addr string, spec Spec, c *content) error {
	logging.SetLevel(logging.LevelNone)
	engine := nbhttp.NewEngine(nbhttp.Config{
		Network: "tcp", Addrs: []string{addr}, Handler: handler(spec.App, c),
		IOMod: nbhttp.IOModNonBlocking, KeepaliveTime: time.Hour,
	})
	if err := engine.Start(); err != nil {
		return fmt.Errorf("nbio: %w", err)
	}
	select {}
}
