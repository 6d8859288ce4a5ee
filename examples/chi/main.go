// Command chi serves a chi router with its usual middleware on Catamount. From
// the folder examples:
//
//	go run ./chi
//	curl -i http://127.0.0.1:9292/articles/7
//	curl -i --compressed http://127.0.0.1:9292/articles
//	curl -i http://127.0.0.1:9292/panic
//	curl -i http://127.0.0.1:9292/slow
//
// The last two are answered by middleware: 500 at once, 504 after two seconds.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/catamount-server/catamount"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
)

func main() {
	log.Fatal(catamount.ListenAndServe("127.0.0.1:9292", router(os.Stdout, 2*time.Second)))
}

// router logs requests to access and lets none take longer than timeout.
func router(access io.Writer, timeout time.Duration) http.Handler {
	r := chi.NewRouter()
	r.Use(middleware.RequestID)
	r.Use(middleware.ClientIPFromXFF("127.0.0.0/8")) // of a proxy on this machine
	r.Use(middleware.RequestLogger(&middleware.DefaultLogFormatter{Logger: log.New(access, "", 0), NoColor: true}))
	r.Use(middleware.Recoverer)
	r.Use(middleware.Timeout(timeout))
	r.Use(middleware.Compress(5))
	r.Route("/articles", func(r chi.Router) {
		r.Get("/", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			for id := range 1000 {
				fmt.Fprintf(w, "article %d\n", id)
			}
		})
		r.Get("/{id}", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(map[string]string{
				"id": chi.URLParam(r, "id"), "client": middleware.GetClientIP(r.Context()), "peer": r.RemoteAddr,
			})
		})
	})
	r.Get("/panic", func(http.ResponseWriter, *http.Request) { panic("a bug in the application") })
	r.Get("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	return r
}
