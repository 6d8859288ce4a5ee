// Package catamount serves ordinary http.Handler values the way Puma serves
// Rack apps: an epoll reactor buffers what is incomplete, and a bounded pool of
// goroutines runs the handlers of whole requests. A slow client costs a few
// hundred bytes, never a goroutine.
//
//	package main
//
//	import (
//		"io"
//		"log"
//		"net/http"
//
//		"github.com/catamount-server/catamount"
//	)
//
//	func main() {
//		http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "Hello, World!") })
//		log.Fatal(catamount.ListenAndServe(":9292", nil))
//	}
//
// [Server] has the shape of http.Server, with a field for each limit and each
// timeout. The packages below it are the architecture: reactor, threadpool and
// parser know nothing of each other, worker joins them.
package catamount
