package worker

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"
)

// Somebody else may close the listener: Serve returns, connections go on.
func TestListenerClosedByOthers(t *testing.T) {
	for name, listen := range map[string]func() (net.Listener, error){
		"tcp":  func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") },
		"unix": func() (net.Listener, error) { return net.Listen("unix", filepath.Join(t.TempDir(), "s")) },
		"other": func() (net.Listener, error) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			return struct{ net.Listener }{l}, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			ts := newTestServer(t, hello)
			l, err := listen()
			if err != nil {
				t.Fatal(err)
			}
			go func() { ts.served <- ts.Serve(l) }()
			conn, err := net.Dial(l.Addr().Network(), l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			_, _ = io.WriteString(conn, get)
			if n, err := conn.Read(make([]byte, 1000)); n == 0 {
				t.Fatal(err)
			}
			l.Close()
			if err := waitFor(t, ts.served); err == nil || errors.Is(err, http.ErrServerClosed) {
				t.Errorf("Serve = %v, want what became of the listener", err)
			}
			_, _ = io.WriteString(conn, get)
			if n, err := conn.Read(make([]byte, 1000)); n == 0 {
				t.Errorf("the connection: %v", err)
			}
		})
	}
}

// One server may serve several listeners; all end with it.
func TestSeveralListeners(t *testing.T) {
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Context().Value(http.LocalAddrContextKey).(net.Addr).String()+r.Context().Value(contextTestKey{}).(string))
	}, func(o *Options) { o.BaseContext = context.WithValue(context.Background(), contextTestKey{}, " base") })
	second, third := listenTCP(t), listenTCP(t)
	go func() { ts.served <- ts.Serve(second) }()
	own := context.WithValue(context.Background(), contextTestKey{}, " own")
	go func() { ts.served <- ts.ServeContext(own, third) }()
	for addr, want := range map[string]string{ts.addr: " base", second.Addr().String(): " base", third.Addr().String(): " own"} {
		c := dialTCP(t, addr)
		c.send(get)
		c.want(200, addr+want)
		c.Close()
	}
	done := ts.shutdown()
	for range 3 {
		if err := waitFor(t, ts.served); err != http.ErrServerClosed {
			t.Errorf("Serve = %v", err)
		}
	}
	if err := waitFor(t, done); err != nil {
		t.Errorf("Shutdown = %v", err)
	}
}
