// Command rpc serves net/rpc on Catamount: its clients send CONNECT, and its
// server takes the connection over. From the folder examples:
//
//	go run ./rpc
//	curl -i http://127.0.0.1:9292/_goRPC_
//	go run ./rpc -call 7,6
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"net/rpc"

	"github.com/catamount-server/catamount"
)

// Pair is what Arithmetic's methods take.
type Pair struct{ A, B int }

// Arithmetic is the service.
type Arithmetic struct{}

// Multiply returns the product.
func (Arithmetic) Multiply(p Pair, product *int) error {
	*product = p.A * p.B
	return nil
}

const address = "127.0.0.1:9292"

func main() {
	var p Pair
	call := flag.String("call", "", "two `numbers` to multiply with a server that runs")
	flag.Parse()
	if _, err := fmt.Sscanf(*call, "%d,%d", &p.A, &p.B); err != nil {
		log.Fatal(catamount.ListenAndServe(address, handler()))
	}
	client, err := rpc.DialHTTP("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	var product int
	fmt.Println(client.Call("Arithmetic.Multiply", p, &product), product)
}

func handler() http.Handler {
	server := rpc.NewServer()
	if err := server.Register(Arithmetic{}); err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(rpc.DefaultRPCPath, server)
	return mux
}
