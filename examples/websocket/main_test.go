package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/catamount-server/catamount"
	"github.com/catamount-server/catamount/examples/internal/serving"
)

func TestMain(m *testing.M) { serving.Main(m) }

// Each library talks to each.
func TestEcho(t *testing.T) {
	ended := make(chan error, 10)
	m := newMessages(10)
	serving.OnBoth(t, echo(func(err error) { ended <- err }), func(t *testing.T, s *serving.Server) {
		for client, dial := range dialers {
			for server := range dialers {
				p, err := dial(t.Context(), "ws://"+s.Addr+"/"+server)
				if err != nil {
					t.Fatal(err)
				}
				m.converse(t, p, 1, 50)
				p.close()
				if err := serving.WaitFor(t, ended); !closedNormally(err) {
					t.Errorf("%s with a client of %s ended with %v", server, client, err)
				}
			}
		}
	})
}

// Two hundred WebSockets, and ordinary requests beside them, on a server with
// eight places.
func TestLoad(t *testing.T) {
	for library := range dialers {
		t.Run(library, func(t *testing.T) {
			ended := make(chan error, connections)
			handler := echo(func(err error) { ended <- err })
			t.Run("catamount", func(t *testing.T) {
				s := serving.Start(t, &catamount.Server{Handler: handler, MaxThreads: 8})
				load(t, s, library, ended)
				checkStats(t, s.Catamount)
			})
			if !testing.Short() { // for comparison
				t.Run("net/http", func(t *testing.T) { load(t, serving.StartHTTP(t, handler), library, ended) })
			}
		})
	}
}

const connections = 200

// load has all connections converse at once, each of them 200 messages of which
// every tenth is large. In a short test it is a quarter of that, for the race
// detector makes it slow.
func load(t *testing.T, s *serving.Server, library string, ended <-chan error) {
	m, perEach := newMessages(10), 200
	if testing.Short() {
		m, perEach = newMessages(25), 50
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*serving.Patience)
	defer cancel()
	peers := make([]peer, connections)
	for i := range peers {
		var err error
		if peers[i], err = dialers[library](ctx, "ws://"+s.Addr+"/"+library); err != nil {
			t.Fatal(err)
		}
		defer peers[i].close()
	}
	if s.Catamount != nil {
		serving.Until(t, "open WebSockets hold no places", func() bool {
			stats := s.Catamount.Stats()
			return stats.BusyThreads == 0 && stats.PoolCapacity == 8 && stats.Hijacked == connections
		})
	}
	stop := ordinaryRequests(t, s)
	began := time.Now()
	var group sync.WaitGroup
	for i, p := range peers {
		group.Go(func() { m.converse(t, p, i, perEach) })
	}
	group.Wait()
	took := time.Since(began)
	requests, slowest := stop()
	for range connections {
		if err := serving.WaitFor(t, ended); !closedNormally(err) {
			t.Errorf("a WebSocket ended with %v", err)
		}
	}
	bytes := 0
	for i := range perEach {
		_, message := m.of(0, i)
		bytes += len(message)
	}
	t.Logf("%d messages there and back in %v (%.0f per second, %.0f MB/s); %d ordinary requests meanwhile, the slowest %v",
		connections*perEach, took, float64(connections*perEach)/took.Seconds(), float64(2*connections*bytes)/took.Seconds()/1e6, requests, slowest)
}

// ordinaryRequests asks for answers until stop is called.
func ordinaryRequests(t *testing.T, s *serving.Server) (stop func() (count int, slowest time.Duration)) {
	ctx, cancel := context.WithCancel(t.Context())
	var count, slowest atomic.Int64
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				answer, err := s.Client.Get(s.URL)
				if err != nil {
					t.Error(err)
					return
				}
				body, err := io.ReadAll(answer.Body)
				answer.Body.Close()
				if answer.StatusCode != http.StatusOK || string(body) != "an ordinary answer" || err != nil {
					t.Errorf("%s %q, %v", answer.Status, body, err)
				}
				count.Add(1)
				for took := int64(time.Since(began)); ; {
					most := slowest.Load()
					if took <= most || slowest.CompareAndSwap(most, took) {
						break
					}
				}
			}
		})
	}
	return func() (int, time.Duration) {
		cancel()
		group.Wait()
		return int(count.Load()), time.Duration(slowest.Load())
	}
}

// checkStats looks for what WebSockets that have ended must not leave.
func checkStats(t *testing.T, s *catamount.Server) {
	serving.Until(t, "nobody is served", func() bool { return s.Stats().BusyThreads == 0 })
	stats := s.Stats()
	if stats.Hijacked != connections || stats.Panics != 0 || stats.PoolCapacity != 8 || stats.Running > 8 || len(stats.WriteErrors) != 0 {
		t.Errorf("afterwards: %+v", stats)
	}
	for state, n := range stats.Connections {
		if state != "idle" && state != "new" && n > 0 { // those are of ordinary requests
			t.Errorf("afterwards: %d connections are %s", n, state)
		}
	}
}

// Clients that vanish in the middle of a message leave nothing behind.
func TestVanishedClients(t *testing.T) {
	ended := make(chan error, 10)
	serving.OnBoth(t, echo(func(err error) { ended <- err }), func(t *testing.T, s *serving.Server) {
		for library := range dialers {
			for _, reset := range []bool{false, true} {
				conn := handshake(t, s, library, frame("hello")[:7])
				if reset {
					_ = conn.SetLinger(0)
				}
				conn.Close()
				if err := serving.WaitFor(t, ended); err == nil || closedNormally(err) {
					t.Errorf("%s, reset %t: ended with %v", library, reset, err)
				}
			}
		}
	})
}

// A client may send its first message together with the handshake. One library
// takes it, the other is strict and refuses it.
func TestEarlyMessage(t *testing.T) {
	ended := make(chan error, 10)
	serving.OnBoth(t, echo(func(err error) { ended <- err }), func(t *testing.T, s *serving.Server) {
		conn := handshake(t, s, "coder", frame("hello"))
		answer := make([]byte, 500)
		n := 0
		for !bytes.HasSuffix(answer[:n], []byte("\r\n\r\n\x81\x05hello")) {
			more, err := conn.Read(answer[n:])
			if n += more; err != nil {
				t.Fatalf("%q, %v", answer[:n], err)
			}
		}
		conn.Close()
		serving.WaitFor(t, ended)
		conn = handshake(t, s, "gorilla", frame("hello"))
		_, _ = io.Copy(io.Discard, conn)
		conn.Close()
		if err := serving.WaitFor(t, ended); err == nil || !strings.Contains(err.Error(), "before handshake is complete") {
			t.Errorf("ended with %v", err)
		}
	})
}

// handshake sends the request for a WebSocket and what follows in one piece.
func handshake(t *testing.T, s *serving.Server, path string, rest []byte) *net.TCPConn {
	conn, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(serving.Patience))
	request := fmt.Sprintf("GET /%s HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n",
		path, base64.StdEncoding.EncodeToString(make([]byte, 16)))
	if _, err := conn.Write(append([]byte(request), rest...)); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// frame is a short text message, masked with zeros.
func frame(text string) []byte {
	return append([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...)
}

func TestNoUpgrade(t *testing.T) {
	serving.OnBoth(t, echo(func(error) {}), func(t *testing.T, s *serving.Server) {
		for library, status := range map[string]int{"gorilla": 400, "coder": 426} {
			if answer, body := s.Get(t, "/"+library); answer.StatusCode != status {
				t.Errorf("%s: %s %q", library, answer.Status, body)
			}
		}
	})
}
