// Command websocket serves echoing WebSockets on Catamount, with both of the
// usual libraries. From the folder examples:
//
//	go run ./websocket
//	curl -i -m 2 http://127.0.0.1:9292/gorilla -H 'Connection: Upgrade' -H 'Upgrade: websocket' \
//		-H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: MTIzNDU2Nzg5MDEyMzQ1Ng=='
//
// or, in the console of a browser:
//
//	s = new WebSocket("ws://127.0.0.1:9292/gorilla"); s.onmessage = m => console.log(m.data); s.onopen = () => s.send("hello")
package main

import (
	"context"
	"io"
	"log"
	"net/http"
	"time"

	"github.com/catamount-server/catamount"
	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
)

const largestMessage = 1 << 20

func main() {
	log.Fatal(catamount.ListenAndServe("127.0.0.1:9292", echo(func(err error) { log.Print(err) })))
}

// echo tells ended why each WebSocket has ended.
func echo(ended func(error)) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/gorilla", func(w http.ResponseWriter, r *http.Request) { ended(echoGorilla(w, r)) })
	mux.HandleFunc("/coder", func(w http.ResponseWriter, r *http.Request) { ended(echoCoder(w, r)) })
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "an ordinary answer") })
	return mux
}

func echoGorilla(w http.ResponseWriter, r *http.Request) error {
	upgrader := gorilla.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetReadLimit(largestMessage)
	conn.SetPingHandler(func(data string) error { // the library's own gives up after a second
		return conn.WriteControl(gorilla.PongMessage, []byte(data), time.Now().Add(time.Minute))
	})
	for {
		kind, message, err := conn.ReadMessage()
		if err != nil {
			return err
		}
		if err := conn.WriteMessage(kind, message); err != nil {
			return err
		}
	}
}

func echoCoder(w http.ResponseWriter, r *http.Request) error {
	conn, err := coder.Accept(w, r, &coder.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	conn.SetReadLimit(largestMessage)
	ctx := context.WithoutCancel(r.Context())
	for {
		kind, message, err := conn.Read(ctx)
		if err != nil {
			return err
		}
		if err := conn.Write(ctx, kind, message); err != nil {
			return err
		}
	}
}
