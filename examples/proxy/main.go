// Command proxy runs httputil.ReverseProxy on Catamount, in front of another
// Catamount. From the folder examples:
//
//	go run ./proxy
//	curl -i http://127.0.0.1:9292/ -d 'what the proxy has to carry'
//	curl -iN http://127.0.0.1:9292/clock
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"github.com/catamount-server/catamount"
)

func main() {
	go func() { log.Fatal(catamount.ListenAndServe("127.0.0.1:9293", application())) }()
	backend := &url.URL{Scheme: "http", Host: "127.0.0.1:9293"}
	log.Fatal(catamount.ListenAndServe("127.0.0.1:9292", proxy(backend, http.DefaultTransport)))
}

func proxy(backend *url.URL, transport http.RoundTripper) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(backend)
			r.SetXForwarded()
			r.Out.Host = r.In.Host
		},
		FlushInterval: -1, // nothing waits in the proxy
	}
}

func application() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s for %s: ", r.Method, r.URL, r.Header.Get("X-Forwarded-For"))
		_, _ = io.Copy(w, r.Body)
	})
	mux.HandleFunc("GET /clock", func(w http.ResponseWriter, r *http.Request) {
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for r.Context().Err() == nil {
			fmt.Fprintln(w, time.Now().Format(time.TimeOnly))
			_ = http.NewResponseController(w).Flush()
			select {
			case <-ticker.C:
			case <-r.Context().Done():
			}
		}
	})
	return mux
}
