package catamount_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/catamount-server/catamount"
)

func hello(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "Hello, World!") }

func TestValidate(t *testing.T) {
	for _, test := range []struct {
		field, reason string
		server        *catamount.Server
	}{
		{"MinThreads", "-1 is negative", &catamount.Server{MinThreads: -1}},
		{"MaxThreads", "-2 is negative", &catamount.Server{MaxThreads: -2}},
		{"MinThreads", "more than MaxThreads", &catamount.Server{MinThreads: 3, MaxThreads: 2}},
		{"MinThreads", "more than MaxThreads", &catamount.Server{MinThreads: catamount.DefaultMaxThreads + 1}},
		{"MaxFastInline", "less than 1", &catamount.Server{MaxFastInline: -1}},
		{"AdvertisedIdle", "shorter than IdleTimeout", &catamount.Server{AdvertisedIdle: 80 * time.Second}},
		{"AdvertisedIdle", "shorter than IdleTimeout", &catamount.Server{AdvertisedIdle: 5 * time.Second, IdleTimeout: 5 * time.Second}},
		{"TCPKeepAlive.Interval", "negative", &catamount.Server{TCPKeepAlive: net.KeepAliveConfig{Interval: -1}}},
		{"TCPKeepAlive.Count", "not between", &catamount.Server{TCPKeepAlive: net.KeepAliveConfig{Count: 128}}},
		{"TCPKeepAlive", "at most", &catamount.Server{TCPKeepAlive: net.KeepAliveConfig{Idle: 10 * time.Hour}}},
		{"BodyMemoryTotal", "less than 1 MiB", &catamount.Server{BodyMemoryTotal: 1<<20 - 1}},
		{"BodyDirectory", "no such file", &catamount.Server{BodyDirectory: "/nowhere/at/all"}},
		{"BodyDirectory", "not a directory", &catamount.Server{BodyDirectory: "/dev/null"}},
	} {
		err := test.server.Validate()
		if err == nil || !strings.Contains(err.Error(), "Server."+test.field) || !strings.Contains(err.Error(), test.reason) {
			t.Errorf("Validate = %v, want field %s and reason %q", err, test.field, test.reason)
		}
		// Serving finds the same, and does not keep the listener.
		l, listenErr := net.Listen("tcp", "127.0.0.1:0")
		if listenErr != nil {
			t.Fatal(listenErr)
		}
		if served := test.server.Serve(l); fmt.Sprint(served) != fmt.Sprint(err) {
			t.Errorf("Serve = %v, want %v", served, err)
		}
		if _, err := l.Accept(); err == nil {
			t.Error("Serve left the listener open")
		}
	}
	for _, good := range []*catamount.Server{
		{},
		{MinThreads: 2, MaxThreads: 2},
		{IdleTimeout: 5 * time.Second}, // what is advertised follows
		{IdleTimeout: -1, AdvertisedIdle: time.Hour}, // no limit is longer than any
		{MaxBodyBytes: -1, MaxHeaderBytes: -1, ReadTimeout: -1, WriteTimeout: -1, BodyMinRate: -1, LingerTimeout: -1},
		{BodyDirectory: t.TempDir(), BodyMemoryTotal: 1 << 20},
		{BodyMemoryTotal: -1}, // straight to the file
	} {
		if err := good.Validate(); err != nil {
			t.Errorf("Validate(%+v) = %v", good, err)
		}
	}
}

var registerZero = sync.OnceFunc(func() { http.HandleFunc("GET /zero", hello) })

func TestZeroServer(t *testing.T) {
	s := &catamount.Server{Logger: slog.New(slog.DiscardHandler)}
	if stats := s.Stats(); stats.MaxThreads != 0 || stats.RequestsCount != 0 {
		t.Errorf("stats of a server that does not serve: %+v", stats)
	}
	registerZero() // the nil handler is the default mux
	answer := talk(t, dial(t, "tcp", serve(t, s)), request("GET /zero HTTP/1.1", "Host: h", "Connection: close"))
	if !strings.HasSuffix(answer, "Hello, World!") {
		t.Errorf("answer %q", answer)
	}
	if stats := s.Stats(); stats.RequestsCount != 1 || stats.MaxThreads != catamount.DefaultMaxThreads {
		t.Errorf("%d requests, %d threads", stats.RequestsCount, stats.MaxThreads)
	}
}

func TestServerThatNeverServed(t *testing.T) {
	var s catamount.Server
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown = %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	if err := s.ListenAndServe(); err != catamount.ErrServerClosed {
		t.Errorf("ListenAndServe after Shutdown = %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); err != http.ErrServerClosed {
		t.Errorf("Serve after Shutdown = %v", err)
	}
}

func TestListenAndServe(t *testing.T) {
	addrs := make(chan net.Addr, 1)
	s := &catamount.Server{
		Addr: "127.0.0.1:0", Handler: http.HandlerFunc(hello), Logger: slog.New(slog.DiscardHandler),
		BaseContext: func(l net.Listener) context.Context { addrs <- l.Addr(); return context.Background() },
	}
	served := make(chan error, 1)
	go func() { served <- s.ListenAndServe() }()
	answer := talk(t, dial(t, "tcp", waitFor(t, addrs).String()), "GET / HTTP/1.0\r\n\r\n")
	if !strings.HasSuffix(answer, "Hello, World!") {
		t.Errorf("answer %q", answer)
	}
	end(t, s)
	if err := waitFor(t, served); err != http.ErrServerClosed {
		t.Errorf("ListenAndServe = %v", err)
	}
}

func TestListenAndServeOnAnAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := &catamount.Server{Addr: l.Addr().String()}
	if err := s.ListenAndServe(); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("ListenAndServe = %v", err)
	}
	end(t, s)
}

// Nobody can close the server that the function Serve makes: when its listener
// is closed it has to end by itself.
func TestServeLeavesNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- catamount.Serve(l, http.HandlerFunc(hello)) }()
	conn := dial(t, "tcp", l.Addr().String())
	if answer := talk(t, conn, "GET / HTTP/1.0\r\n\r\n"); !strings.HasSuffix(answer, "Hello, World!") {
		t.Errorf("answer %q", answer)
	}
	conn.Close()
	l.Close()
	if err := waitFor(t, served); err == nil {
		t.Error("Serve returned no error")
	}
	until(t, "the server's goroutines end", func() bool { return !strings.Contains(stacks(), "runReactor") })
}

type contextKey struct{}

func TestBaseContext(t *testing.T) {
	base, cancel := context.WithCancel(context.WithValue(context.Background(), contextKey{}, "base"))
	defer cancel()
	entered := make(chan struct{})
	s := &catamount.Server{
		BaseContext: func(l net.Listener) context.Context {
			return context.WithValue(base, http.LocalAddrContextKey, l.Addr())
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if v := r.Context().Value(contextKey{}); v != "base" {
				t.Errorf("value %v", v)
			}
			close(entered)
			<-r.Context().Done()
			fmt.Fprint(w, r.Context().Err())
		}),
	}
	conn := dial(t, "tcp", serve(t, s))
	go func() { <-entered; cancel() }()
	if answer := talk(t, conn, "GET / HTTP/1.0\r\n\r\n"); !strings.HasSuffix(answer, "context canceled") {
		t.Errorf("answer %q", answer)
	}
}

func TestNilBaseContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &catamount.Server{BaseContext: func(net.Listener) context.Context { return nil }}
	if err := s.Serve(l); err == nil || !strings.Contains(err.Error(), "BaseContext") {
		t.Errorf("Serve = %v", err)
	}
	end(t, s)
}

// Requests of a base context that can end must not be remembered by it.
func TestBaseContextIsLetGo(t *testing.T) {
	for name, input := range map[string]string{
		"served":  strings.Repeat(get11, 10) + request("GET / HTTP/1.1", "Host: h", "Connection: close"),
		"400":     withLength("x"),
		"413":     withLength("101"),
		"417":     request("GET / HTTP/1.1", "Host: h", "Expect: gold"),
		"chunked": chunked("x"),
	} {
		t.Run(name, func(t *testing.T) {
			base := newWatchedContext()
			s := &catamount.Server{
				BaseContext: func(net.Listener) context.Context { return base }, Handler: http.HandlerFunc(hello), MaxBodyBytes: 100,
			}
			talk(t, dial(t, "tcp", serve(t, s)), input)
			if n := base.watchers.Load(); n != 0 {
				t.Errorf("%d requests still watch the base context", n)
			}
		})
	}
}

func TestServerContextKeys(t *testing.T) {
	s := &catamount.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		place, ok := catamount.PlaceOf(r)
		if _, isServer := r.Context().Value(http.ServerContextKey).(*http.Server); !isServer {
			t.Error("no server in the context")
		}
		fmt.Fprint(w, place, ok, " ", r.Context().Value(http.LocalAddrContextKey), " ", r.RemoteAddr)
	})}
	addr := serve(t, s)
	conn := dial(t, "tcp", addr)
	want := "0 true " + addr + " " + conn.LocalAddr().String()
	if answer := talk(t, conn, "GET / HTTP/1.0\r\n\r\n"); !strings.HasSuffix(answer, want) {
		t.Errorf("answer %q, want %q", answer, want)
	}
	r, err := http.NewRequest("GET", "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if place, ok := catamount.PlaceOf(r); ok {
		t.Errorf("place %d of a request that is not served", place)
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &catamount.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Context().Value(http.LocalAddrContextKey))
	})}
	serveOn(t, s, l)
	if answer := talk(t, dial(t, "unix", path), "GET / HTTP/1.0\r\n\r\n"); !strings.HasSuffix(answer, path) {
		t.Errorf("answer %q, want the address %q", answer, path)
	}
	if answer := talk(t, dial(t, "unix", path), "GET\r\n\r\n"); !strings.HasPrefix(answer, "HTTP/1.1 400") {
		t.Errorf("answer %q", answer)
	}
}

// The announced time follows a shortened IdleTimeout.
func TestAdvertisedIdle(t *testing.T) {
	for _, test := range []struct {
		server *catamount.Server
		want   string
	}{
		{&catamount.Server{}, "timeout=65"},
		{&catamount.Server{IdleTimeout: 40 * time.Second}, "timeout=32"},
		{&catamount.Server{IdleTimeout: 60 * time.Second}, "timeout=50"},
		{&catamount.Server{AdvertisedIdle: 7 * time.Second}, "timeout=7"},
		{&catamount.Server{IdleTimeout: 500 * time.Millisecond}, ""}, // no whole second: better silent
		{&catamount.Server{AdvertisedIdle: -1}, ""},
	} {
		test.server.Handler = http.HandlerFunc(hello)
		conn := dial(t, "tcp", serve(t, test.server)).(*net.TCPConn)
		if _, err := io.WriteString(conn, get11); err != nil {
			t.Fatal(err)
		}
		_ = conn.CloseWrite()
		answer := talk(t, conn, "")
		_, rest, _ := strings.Cut(answer, "\r\nKeep-Alive: ")
		if got, _, _ := strings.Cut(rest, "\r\n"); got != test.want {
			t.Errorf("IdleTimeout %v, AdvertisedIdle %v: Keep-Alive %q, want %q", test.server.IdleTimeout, test.server.AdvertisedIdle, got, test.want)
		}
	}
}

// A handler that closes its server answers nobody: nothing is sent once Close
// has returned.
func TestCloseFromAHandler(t *testing.T) {
	closed := make(chan error, 1)
	s := &catamount.Server{Logger: slog.New(slog.DiscardHandler)}
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		closed <- s.Close()
		hello(w, r)
	})
	if answer := talk(t, dial(t, "tcp", serve(t, s)), request("GET / HTTP/1.1", "Host: h")); answer != "" {
		t.Errorf("answer %q", answer)
	}
	if err := waitFor(t, closed); err != nil {
		t.Errorf("Close = %v", err)
	}
}
