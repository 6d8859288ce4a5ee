// Command upload takes large bodies on Catamount. From the folder examples:
//
//	go run ./upload
//	curl -i http://127.0.0.1:9292/raw -T README.md
//	curl -i http://127.0.0.1:9292/form -F title=readme -F file=@README.md
//
// A handler runs once the whole body is here. Until then it waits in memory, as
// far as BodyMemory and BodyMemoryTotal go, and then in an unnamed file in
// BodyDirectory: slow uploads hold no goroutine, and of memory no more than that.
package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"net/http"

	"github.com/catamount-server/catamount"
)

func main() {
	server := &catamount.Server{Addr: "127.0.0.1:9292", Handler: uploads(), MaxBodyBytes: 8 << 30}
	log.Fatal(server.ListenAndServe())
}

func uploads() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/raw", func(w http.ResponseWriter, r *http.Request) { checksum(w, r.Body) })
	mux.HandleFunc("POST /form", func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(1 << 20); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		file, header, err := r.FormFile("file")
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		defer file.Close()
		fmt.Fprintf(w, "%s: %s: ", r.FormValue("title"), header.Filename)
		checksum(w, file)
	})
	return mux
}

func checksum(w http.ResponseWriter, body io.Reader) {
	hash := sha256.New()
	n, err := io.Copy(hash, body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprintf(w, "%d bytes, %x\n", n, hash.Sum(nil))
}
