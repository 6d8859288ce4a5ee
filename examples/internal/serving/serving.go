// Package serving runs the handlers of the examples on a real server for their
// tests.
//
// Who calls it: the tests of the examples, and nobody else. Start serves on a
// catamount.Server; OnBoth runs the same test on net/http as well, which shows
// that what the test asks for is the contract of http.Handler and nothing that
// only one server has. Who owns what: a Server belongs to the test that started
// it and ends with that test. The invariant: when a server has ended, no
// goroutine of it is left, and it has logged no error.
package serving

import (
	"context"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/catamount-server/catamount"
)

// Server is a running server and a client for it.
type Server struct {
	// URL without a slash at its end, and Addr, the same as host:port.
	URL, Addr string
	// Client is of this server only. It asks for no compression by itself.
	Client *http.Client
	// Catamount is the server, nil on net/http.
	Catamount *catamount.Server
	// Log has what the server logged.
	Log *Log

	before goroutines
	atEnd  []func()
}

// AtEnd adds what is to be done when the server has ended, before anybody looks
// for what is left of it.
func (s *Server) AtEnd(f func()) { s.atEnd = append(s.atEnd, f) }

// InFrontOf says that another server, started before and ended after this one, is
// at work for it meanwhile: goroutines that are left are found at its end.
func (s *Server) InFrontOf(*Server) { s.before = nil }

// Start serves s on a port of the loopback interface until the end of the
// test, which fails when something of it is left then.
func Start(t testing.TB, s *catamount.Server) *Server {
	t.Helper()
	server := newServer(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Logger = slog.New(server.Log)
	server.Catamount = s
	server.at(listener.Addr())
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	t.Cleanup(func() {
		server.stop(t)
		if err := WaitFor(t, served); err != http.ErrServerClosed {
			t.Errorf("Serve: %v", err)
		}
		server.check(t)
	})
	return server
}

// StartHTTP serves handler on net/http, for comparison.
func StartHTTP(t testing.TB, handler http.Handler) *Server {
	t.Helper()
	server := newServer(t)
	reference := httptest.NewUnstartedServer(handler)
	reference.Config.ErrorLog = log.New(server.Log, "", 0)
	reference.Start()
	server.at(reference.Listener.Addr())
	t.Cleanup(func() {
		server.Client.CloseIdleConnections()
		reference.Close()
		server.check(t)
	})
	return server
}

// OnBoth runs the test on Catamount and on net/http.
func OnBoth(t *testing.T, handler http.Handler, test func(t *testing.T, s *Server)) {
	t.Helper()
	t.Run("catamount", func(t *testing.T) { test(t, Start(t, &catamount.Server{Handler: handler})) })
	t.Run("net/http", func(t *testing.T) { test(t, StartHTTP(t, handler)) })
}

func newServer(t testing.TB) *Server {
	return &Server{
		Client: NewClient(t),
		Log:    newLog(),
		before: allGoroutines(),
	}
}

// NewClient returns a client whose connections end with the test. It takes
// answers as they come: no compression, no redirects.
func NewClient(t testing.TB) *http.Client {
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 1000}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

func (s *Server) at(addr net.Addr) {
	s.Addr = addr.String()
	s.URL = "http://" + s.Addr
}

// stop asks the server to end, and insists when it does not.
func (s *Server) stop(t testing.TB) {
	s.Client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	if err := s.Catamount.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v; %+v", err, s.Catamount.Stats())
		_ = s.Catamount.Close()
	}
	// A goroutine of the pool may be on its way home from the last connection.
	Until(t, "nothing is served or waits after the end", func() bool {
		stats := s.Catamount.Stats()
		return stats.BusyThreads == 0 && stats.Backlog == 0
	})
}

// check looks for what must not be there after a server's end.
func (s *Server) check(t testing.TB) {
	for _, f := range s.atEnd {
		f()
	}
	if s.before != nil {
		if left := s.before.left(); left != "" {
			t.Errorf("goroutines left:\n%s", left)
		}
	}
	for _, line := range s.Log.Errors() {
		t.Errorf("logged: %s", line)
	}
	if t.Failed() {
		t.Logf("the server's log:\n%s", s.Log)
	}
}
