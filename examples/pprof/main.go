// Command pprof serves http.DefaultServeMux on Catamount, and with it the
// profiles of net/http/pprof. From the folder examples:
//
//	go run ./pprof
//	go tool pprof -top http://127.0.0.1:9292/debug/pprof/profile?seconds=5
//	curl http://127.0.0.1:9292/debug/pprof/goroutine?debug=1
//	curl -o trace.out http://127.0.0.1:9292/debug/pprof/trace?seconds=1
package main

import (
	"fmt"
	"log"
	"net/http"
	_ "net/http/pprof" // adds its handlers to http.DefaultServeMux

	"github.com/catamount-server/catamount"
)

func main() {
	http.HandleFunc("/", hello)
	log.Fatal(catamount.ListenAndServe("127.0.0.1:9292", nil))
}

func hello(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "Hello, World!") }
