// Command files serves a folder, and content made by the program, with what
// net/http has for that. From the folder examples:
//
//	go run ./files
//	curl -i http://127.0.0.1:9292/folder/
//	curl -i http://127.0.0.1:9292/folder/README.md -r 0-9,-10
//	curl -i http://127.0.0.1:9292/report -H 'If-None-Match: "1"'
package main

import (
	"log"
	"net/http"
	"strings"
	"time"

	"github.com/catamount-server/catamount"
)

func main() {
	log.Fatal(catamount.ListenAndServe("127.0.0.1:9292", files(".")))
}

func files(folder string) http.Handler {
	started := time.Now()
	mux := http.NewServeMux()
	mux.Handle("/folder/", http.StripPrefix("/folder/", http.FileServer(http.Dir(folder))))
	mux.HandleFunc("/report", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"1"`)
		http.ServeContent(w, r, "report.txt", started, strings.NewReader("0123456789"))
	})
	return mux
}
