package catamount_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"

	"github.com/catamount-server/catamount"
)

func ExampleListenAndServe() {
	http.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "Hello, World!") })
	log.Fatal(catamount.ListenAndServe(":9292", nil))
}

func ExampleServer() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	s := &catamount.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "You asked for %s.", r.URL.Path) }),
		Logger:  slog.New(slog.DiscardHandler),
	}
	served := make(chan error)
	go func() { served <- s.Serve(l) }()

	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://" + l.Addr().String() + "/fish")
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	fmt.Println(string(body))

	fmt.Println(s.Shutdown(context.Background()))
	fmt.Println(<-served)
	// Output:
	// You asked for /fish.
	// <nil>
	// http: Server closed
}
