// Command timeouts limits handlers on Catamount with what net/http has for it:
// http.TimeoutHandler, http.MaxBytesHandler and a deadline for writing. From
// the folder examples:
//
//	go run ./timeouts
//	curl -i http://127.0.0.1:9292/slow
//	curl -i http://127.0.0.1:9292/small -d 'few bytes'
//	curl -i http://127.0.0.1:9292/small -T /bin/ls
//	curl -i http://127.0.0.1:9292/much --limit-rate 1k --output much
package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"time"

	"github.com/catamount-server/catamount"
)

func main() {
	log.Fatal(catamount.ListenAndServe("127.0.0.1:9292", limited(2*time.Second, func(err error) { log.Print(err) })))
}

// limited tells failed of answers that their clients do not read in time.
func limited(timeout time.Duration, failed func(error)) *http.ServeMux {
	mux := http.NewServeMux()
	slow := func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	mux.Handle("/slow", http.TimeoutHandler(http.HandlerFunc(slow), timeout, "too late\n"))
	mux.Handle("/small", http.MaxBytesHandler(http.HandlerFunc(count), 1000))
	mux.HandleFunc("/much", func(w http.ResponseWriter, r *http.Request) {
		controller := http.NewResponseController(w)
		for part := make([]byte, 1<<20); ; {
			// The client has to take each part within the time.
			err := controller.SetWriteDeadline(time.Now().Add(timeout))
			if err == nil {
				_, err = w.Write(part)
			}
			if err != nil {
				failed(err)
				return
			}
		}
	})
	return mux
}

func count(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, r.Body)
	var over *http.MaxBytesError
	if errors.As(err, &over) {
		http.Error(w, fmt.Sprintf("more than %d bytes", over.Limit), http.StatusRequestEntityTooLarge)
		return
	}
	fmt.Fprintf(w, "%d bytes\n", n)
}
