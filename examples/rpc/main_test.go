package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/rpc"
	"strings"
	"sync"
	"testing"

	"github.com/catamount-server/catamount"
	"github.com/catamount-server/catamount/examples/internal/serving"
)

func TestMain(m *testing.M) { serving.Main(m) }

// A hundred clients with calls in flight, on a server with few places: a
// connection that was taken over holds none.
func TestManyClients(t *testing.T) {
	const clients, calls = 100, 25
	s := serving.Start(t, &catamount.Server{Handler: handler(), MaxThreads: 4})
	var connected, group sync.WaitGroup
	connected.Add(clients)
	checked := make(chan struct{})
	for i := range clients {
		group.Go(func() {
			client, err := rpc.DialHTTP("tcp", s.Addr)
			if err != nil {
				t.Error(err)
				connected.Done()
				return
			}
			defer client.Close()
			work(t, client, i, calls)
			connected.Done()
			<-checked
			work(t, client, i, calls)
		})
	}
	connected.Wait()
	// All are connected, and the server still answers others.
	if answer, body := s.Get(t, "/"); answer.StatusCode != 404 {
		t.Errorf("%s %q", answer.Status, body)
	}
	serving.Until(t, "connected clients hold no places", func() bool {
		stats := s.Catamount.Stats()
		return stats.Hijacked == clients && stats.BusyThreads == 0 && stats.PoolCapacity == 4
	})
	close(checked)
	group.Wait()
}

// work makes several calls at once and checks their answers.
func work(t *testing.T, client *rpc.Client, i, calls int) {
	done := make(chan *rpc.Call, calls)
	for j := range calls {
		client.Go("Arithmetic.Multiply", Pair{i, j}, new(int), done)
	}
	for range calls {
		call := <-done
		if p := call.Args.(Pair); call.Error != nil || *call.Reply.(*int) != p.A*p.B {
			t.Errorf("%v: %v, %v", p, *call.Reply.(*int), call.Error)
		}
	}
}

func TestErrors(t *testing.T) {
	serving.OnBoth(t, handler(), func(t *testing.T, s *serving.Server) {
		client, err := rpc.DialHTTP("tcp", s.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		var refused rpc.ServerError
		if err := client.Call("Arithmetic.Divide", Pair{1, 2}, new(int)); !errors.As(err, &refused) {
			t.Errorf("an unknown method: %v", err)
		}
		if answer, body := s.Get(t, rpc.DefaultRPCPath); answer.StatusCode != http.StatusMethodNotAllowed || body != "405 must CONNECT\n" {
			t.Errorf("GET: %s %q", answer.Status, body)
		}
		if _, err := rpc.DialHTTPPath("tcp", s.Addr, "/elsewhere"); err == nil || !strings.Contains(err.Error(), "404") {
			t.Errorf("an unknown path: %v", err)
		}
	})
}

// What a client sends behind its CONNECT without waiting belongs to the one who
// takes the connection over.
func TestEarlyBytes(t *testing.T) {
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		line, err := rw.ReadString('\n')
		fmt.Fprintf(rw, "%s %s, %v", r.Method, line, err)
		_ = rw.Flush()
	})
	serving.OnBoth(t, echo, func(t *testing.T, s *serving.Server) {
		for _, cut := range []int{0, 3, 6} {
			conn, err := net.Dial("tcp", s.Addr)
			if err != nil {
				t.Fatal(err)
			}
			const early = "early\n"
			fmt.Fprint(conn, "CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n"+early[:cut])
			fmt.Fprint(conn, early[cut:])
			if got, err := io.ReadAll(conn); string(got) != "CONNECT early\n, <nil>" || err != nil {
				t.Errorf("%d bytes at once: %q, %v", cut, got, err)
			}
			conn.Close()
		}
	})
}
