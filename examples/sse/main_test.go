package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/catamount-server/catamount"
	"github.com/catamount-server/catamount/examples/internal/serving"
)

func TestMain(m *testing.M) { serving.Main(m) }

func (b *broker) size() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.streams)
}

// stream is a client's side.
type stream struct {
	conn  *net.TCPConn
	lines *bufio.Reader
}

// listen opens a stream and reads the head of its answer, which comes before
// the first event.
func listen(t testing.TB, s *serving.Server) *stream {
	conn, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(2 * serving.Patience))
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	lines := bufio.NewReader(conn)
	answer, err := http.ReadResponse(lines, nil)
	if err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode != 200 || answer.Header.Get("Content-Type") != "text/event-stream" || !slices.Equal(answer.TransferEncoding, []string{"chunked"}) {
		t.Fatalf("%s %v", answer.Status, answer.Header)
	}
	return &stream{conn.(*net.TCPConn), bufio.NewReader(answer.Body)}
}

func (s *stream) expect(event string) error {
	line, err := s.lines.ReadString('\n')
	if err == nil && line != "data: "+event+"\n" {
		err = fmt.Errorf("%q, want %q", line, event)
	}
	if err == nil {
		_, err = s.lines.ReadString('\n')
	}
	return err
}

// Each event arrives before the next is published.
func TestEvents(t *testing.T) {
	b := newBroker()
	serving.OnBoth(t, b, func(t *testing.T, s *serving.Server) {
		client := listen(t, s)
		for i := range 10 {
			event := fmt.Sprint("event ", i)
			b.publish(event)
			if err := client.expect(event); err != nil {
				t.Fatal(err)
			}
		}
		client.conn.Close()
		serving.Until(t, "the stream has ended", func() bool { return b.size() == 0 })
	})
}

// The context of a request ends soon after its client has left, in whatever
// way, and though nobody writes to it.
func TestClientLeaves(t *testing.T) {
	ways := map[string]func(c *net.TCPConn) error{
		"close":      (*net.TCPConn).Close,
		"half close": (*net.TCPConn).CloseWrite,
		"reset":      func(c *net.TCPConn) error { return errors.Join(c.SetLinger(0), c.Close()) },
	}
	cancelled := make(chan time.Time, 1)
	b := newBroker()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		context.AfterFunc(r.Context(), func() { cancelled <- time.Now() })
		b.ServeHTTP(w, r)
	})
	serving.OnBoth(t, handler, func(t *testing.T, s *serving.Server) {
		for way, leave := range ways {
			var took []time.Duration
			for range 21 {
				client := listen(t, s)
				began := time.Now()
				if err := leave(client.conn); err != nil {
					t.Fatal(err)
				}
				took = append(took, serving.WaitFor(t, cancelled).Sub(began))
				client.conn.Close()
			}
			slices.Sort(took)
			t.Logf("%s: the context ended after %v (median), %v (longest of %d)", way, took[len(took)/2], took[len(took)-1], len(took))
			if longest := took[len(took)-1]; longest > time.Second {
				t.Errorf("%s: %v", way, longest)
			}
		}
		serving.Until(t, "all streams have ended", func() bool { return b.size() == 0 })
	})
}

func TestManyStreams(t *testing.T) {
	const streams, events = 200, 20
	b := newBroker()
	mux := http.NewServeMux()
	mux.Handle("/", b)
	mux.HandleFunc("/hello", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	s := serving.Start(t, &catamount.Server{Handler: mux, MaxThreads: 250})
	clients := make([]*stream, streams)
	for i := range clients {
		clients[i] = listen(t, s)
	}
	if stats := s.Catamount.Stats(); stats.BusyThreads != streams || stats.PoolCapacity != 50 {
		t.Errorf("with %d streams: %+v", streams, stats)
	}
	began := time.Now()
	for i := range events {
		b.publish(fmt.Sprint("event ", i))
		var group sync.WaitGroup
		for _, client := range clients {
			group.Go(func() {
				if err := client.expect(fmt.Sprint("event ", i)); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
	}
	took := time.Since(began)
	if _, body := s.Get(t, "/hello"); body != "hello" {
		t.Errorf("an ordinary request: %q", body)
	}
	began = time.Now()
	for _, client := range clients {
		client.conn.Close()
	}
	serving.Until(t, "all streams have ended", func() bool { return b.size() == 0 && s.Catamount.Stats().BusyThreads == 0 })
	t.Logf("%d events to %d clients in %v; all had left after %v", events, streams, took, time.Since(began))
	if stats := s.Catamount.Stats(); stats.Gone != streams || len(stats.WriteErrors) != 0 {
		t.Errorf("afterwards: %+v", stats)
	}
}

// Where all places are streams, others wait until one ends.
func TestStreamsHoldPlaces(t *testing.T) {
	b := newBroker()
	s := serving.Start(t, &catamount.Server{Handler: b, MaxThreads: 2})
	first, second := listen(t, s), listen(t, s)
	third := make(chan *stream)
	go func() { third <- listen(t, s) }()
	serving.Until(t, "the third waits", func() bool { return s.Catamount.Stats().Backlog == 1 })
	first.conn.Close()
	client := serving.WaitFor(t, third)
	b.publish("event")
	for _, client := range []*stream{second, client} {
		if err := client.expect("event"); err != nil {
			t.Error(err)
		}
		client.conn.Close()
	}
}

// Shutdown waits for streams, and RegisterOnShutdown ends them: their clients
// read a whole answer.
func TestShutdown(t *testing.T) {
	b := newBroker()
	server := &catamount.Server{Handler: b}
	server.RegisterOnShutdown(b.end)
	s := serving.Start(t, server)
	clients := []*stream{listen(t, s), listen(t, s), listen(t, s)}
	b.publish("the last one")
	for _, client := range clients {
		if err := client.expect("the last one"); err != nil {
			t.Error(err)
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Shutdown(t.Context()) }()
	for _, client := range clients {
		if rest, err := io.ReadAll(client.lines); err != nil || strings.TrimSpace(string(rest)) != "" {
			t.Errorf("at the end: %q, %v", rest, err)
		}
		client.conn.Close()
	}
	if err := serving.WaitFor(t, ended); err != nil {
		t.Error(err)
	}
}
