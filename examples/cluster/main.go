// Command cluster is a shop with a master and workers. From the folder
// examples:
//
//	go build -o /tmp/shop ./cluster && /tmp/shop -w 2 -p 9292 --pidfile /tmp/shop.pid
//	curl -i http://127.0.0.1:9292/price/puma
//	curl -iN http://127.0.0.1:9292/events &
//	kill -USR1 $(cat /tmp/shop.pid)        # a phased restart: the stream ends in order, the rest notices nothing
//
// The price list and the site are prepared once and lie in memory that all
// workers share; the number of sales is one for all of them.
package main

import (
	"context"
	"embed"
	"encoding/binary"
	"fmt"
	"io/fs"
	"net/http"
	"time"

	"github.com/catamount-server/catamount"
)

//go:embed site
var site embed.FS

func main() {
	catamount.Main(catamount.App{Preload: preload, Handler: handler})
}

// preload is what would take long and much memory in a real shop.
func preload(_ context.Context, p *catamount.Preloader) error {
	pages, err := fs.Sub(site, "site")
	if err != nil {
		return err
	}
	if err := p.Dir("site", pages); err != nil {
		return err
	}
	prices, err := p.Table("prices")
	if err != nil {
		return err
	}
	for i, animal := range []string{"puma", "lynx", "ocelot", "serval"} {
		if err := prices.Put(animal, binary.BigEndian.AppendUint32(nil, uint32(1000+i))); err != nil {
			return err
		}
	}
	return prices.Close()
}

// handler runs in each worker.
func handler(w *catamount.Worker) (http.Handler, error) {
	prices, err := w.Preloaded().Table("prices")
	if err != nil {
		return nil, err
	}
	pages, err := w.Preloaded().FS("site")
	if err != nil {
		return nil, err
	}
	asked, err := w.Counter("prices asked for")
	if err != nil {
		return nil, err
	}
	limit, err := w.Limiter("prices", 1000, 100)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(pages))
	mux.HandleFunc("GET /price/{animal}", func(rw http.ResponseWriter, r *http.Request) {
		if !limit.Allow() { // of all workers together
			http.Error(rw, "too many customers", http.StatusTooManyRequests)
			return
		}
		price, ok := prices.Get(r.PathValue("animal"))
		if !ok {
			http.NotFound(rw, r)
			return
		}
		asked.Add(1)
		fmt.Fprintf(rw, "%d, says worker %d; asked for %d times\n", binary.BigEndian.Uint32([]byte(price)), w.Index(), asked.Value())
	})
	mux.HandleFunc("GET /events", func(rw http.ResponseWriter, r *http.Request) { events(rw, r, w.Context()) })
	return mux, nil
}

// events is a stream that ends when its client leaves or its worker has to: a
// browser's EventSource connects again then, to a worker that stays.
func events(rw http.ResponseWriter, r *http.Request, worker context.Context) {
	rw.Header().Set("Content-Type", "text/event-stream")
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for http.NewResponseController(rw).Flush() == nil {
		select {
		case now := <-ticker.C:
			fmt.Fprintf(rw, "data: %s\n\n", now.Format(time.TimeOnly))
		case <-r.Context().Done():
			return
		case <-worker.Done():
			fmt.Fprint(rw, "event: goodbye\ndata: connect again\n\n")
			return
		}
	}
}
