package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/catamount-server/catamount"
	"github.com/catamount-server/catamount/examples/internal/serving"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
)

func TestMain(m *testing.M) { serving.Main(m) }

// accessLog is written by handlers and read by the test.
type accessLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *accessLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *accessLog) has(words string) func() bool {
	return func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return strings.Contains(l.text.String(), words)
	}
}

func TestRouter(t *testing.T) {
	var access accessLog
	serving.OnBoth(t, router(&access, serving.Patience), func(t *testing.T, s *serving.Server) {
		for _, c := range []struct {
			method, path string
			status       int
			body         string // what it begins with
		}{
			{"GET", "/articles", 200, "article 0\narticle 1\n"},
			{"GET", "/articles/7", 200, `{"client":"","id":"7","peer":"127.0.0.1:`},
			{"GET", "/articles/a%2Fb?x=1", 200, `{"client":"","id":"a%2Fb"`},
			{"GET", "/nothing", 404, "404 page not found\n"},
			{"POST", "/articles/7", 405, ""},
			{"GET", "/panic", 500, ""},
		} {
			answer, body := s.Do(t, serving.NewRequest(t, c.method, s.URL+c.path, nil))
			if answer.StatusCode != c.status || !strings.HasPrefix(body, c.body) || c.body == "" && body != "" {
				t.Errorf("%s %s: %s %q", c.method, c.path, answer.Status, body)
			}
			if allow := answer.Header.Get("Allow"); c.status == 405 && allow != "GET" {
				t.Errorf("%s %s: Allow %q", c.method, c.path, allow)
			}
			line := fmt.Sprintf(`"%s %s%s HTTP/1.1" from 127.0.0.1:`, c.method, s.URL, c.path)
			serving.Until(t, line, access.has(line))
		}
		serving.Until(t, "the logger counts", access.has(" - 405 0B in "))
	})
}

// A proxy's word counts, and only as far as chi was told to believe it.
func TestClientIP(t *testing.T) {
	serving.OnBoth(t, router(io.Discard, serving.Patience), func(t *testing.T, s *serving.Server) {
		r := serving.NewRequest(t, "GET", s.URL+"/articles/7", nil, "X-Forwarded-For", "192.0.2.1, 203.0.113.9")
		var answer struct{ Client, Peer string }
		if _, body := s.Do(t, r); json.Unmarshal([]byte(body), &answer) != nil || answer.Client != "203.0.113.9" || !strings.HasPrefix(answer.Peer, "127.") {
			t.Errorf("answer %q", body)
		}
	})
}

// RealIP, which chi does not recommend any more, writes into the request.
func TestRealIP(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RemoteAddr) })
	//lint:ignore SA1019 many programs have it
	serving.OnBoth(t, middleware.RealIP(handler), func(t *testing.T, s *serving.Server) {
		for range 2 { // on the same connection
			if _, body := s.Do(t, serving.NewRequest(t, "GET", s.URL, nil, "X-Real-IP", "192.0.2.1")); body != "192.0.2.1" {
				t.Errorf("RemoteAddr %q with the header", body)
			}
			if _, body := s.Get(t, "/"); !strings.HasPrefix(body, "127.0.0.1:") {
				t.Errorf("RemoteAddr %q without the header", body)
			}
		}
	})
}

func TestCompress(t *testing.T) {
	serving.OnBoth(t, router(io.Discard, serving.Patience), func(t *testing.T, s *serving.Server) {
		_, plain := s.Get(t, "/articles")
		answer, packed := s.Do(t, serving.NewRequest(t, "GET", s.URL+"/articles", nil, "Accept-Encoding", "gzip"))
		if answer.Header.Get("Content-Encoding") != "gzip" || answer.Header.Get("Vary") != "Accept-Encoding" || answer.Header.Get("Content-Type") != "text/plain" {
			t.Errorf("header %v", answer.Header)
		}
		unpacked, err := gunzip(packed)
		if err != nil || unpacked != plain || len(packed) >= len(plain)/2 {
			t.Errorf("%d bytes for %d, %v", len(packed), len(plain), err)
		}
	})
}

func gunzip(packed string) (string, error) {
	r, err := gzip.NewReader(strings.NewReader(packed))
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(r)
	return string(b), err
}

// What is flushed goes through the compressor and arrives while the handler
// still runs.
func TestFlushCompressed(t *testing.T) {
	next := make(chan struct{})
	r := chi.NewRouter()
	r.Use(middleware.Compress(5))
	r.Get("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		for i := range 3 {
			fmt.Fprintf(w, "line %d\n", i)
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			serving.WaitFor(t, next)
		}
	})
	serving.OnBoth(t, r, func(t *testing.T, s *serving.Server) {
		answer, err := s.Client.Do(serving.NewRequest(t, "GET", s.URL, nil, "Accept-Encoding", "gzip"))
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		unpacked, err := gzip.NewReader(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(unpacked)
		for i := range 3 {
			if line, err := lines.ReadString('\n'); err != nil || line != fmt.Sprintf("line %d\n", i) {
				t.Fatalf("line %d: %q, %v", i, line, err)
			}
			next <- struct{}{}
		}
		if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
			t.Errorf("the rest: %q, %v", rest, err)
		}
	})
}

func TestTimeout(t *testing.T) {
	serving.OnBoth(t, router(io.Discard, 20*time.Millisecond), func(t *testing.T, s *serving.Server) {
		if answer, body := s.Get(t, "/slow"); answer.StatusCode != http.StatusGatewayTimeout || body != "" {
			t.Errorf("%s %q", answer.Status, body)
		}
		if answer, _ := s.Get(t, "/articles/7"); answer.StatusCode != 200 {
			t.Errorf("afterwards: %s", answer.Status)
		}
	})
}

// The client that leaves ends the context below all of the middleware.
func TestClientLeaves(t *testing.T) {
	started, ended := make(chan struct{}), make(chan error)
	application := router(io.Discard, serving.Patience).(chi.Router)
	application.Get("/wait", func(_ http.ResponseWriter, r *http.Request) {
		close(started)
		<-r.Context().Done()
		ended <- r.Context().Err()
	})
	s := serving.Start(t, &catamount.Server{Handler: application})
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		<-started
		leave()
	}()
	if _, err := s.Client.Do(serving.NewRequest(t, "GET", s.URL+"/wait", nil).WithContext(ctx)); err == nil {
		t.Error("an answer")
	}
	if err := serving.WaitFor(t, ended); err != context.Canceled {
		t.Errorf("the context's error is %v", err)
	}
}
