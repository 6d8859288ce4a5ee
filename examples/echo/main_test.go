package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/catamount-server/catamount"
	"github.com/catamount-server/catamount/examples/internal/serving"
	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
)

func TestMain(m *testing.M) { serving.Main(m) }

func TestBind(t *testing.T) {
	serving.OnBoth(t, application(io.Discard, serving.Patience), func(t *testing.T, s *serving.Server) {
		for _, c := range []struct {
			method, path, typ, body, answer string
			status                          int
		}{
			{"POST", "/users", "application/json", `{"name": "Ada"}`, `{"id":"","name":"Ada","sort":""}`, 200},
			{"GET", "/users/7?sort=name", "", "", `{"id":"7","name":"","sort":"name"}`, 200},
			{"POST", "/users", "application/json", `{"name": `, `{"message":"unexpected EOF"}`, 400},
			{"POST", "/users", "text/plain", `Ada`, `{"message":"Unsupported Media Type"}`, 415},
			{"GET", "/nobody", "", "", `{"message":"Not Found"}`, 404},
			{"PUT", "/users", "", "", `{"message":"Method Not Allowed"}`, 405},
		} {
			r := serving.NewRequest(t, c.method, s.URL+c.path, strings.NewReader(c.body), "Content-Type", c.typ)
			if answer, body := s.Do(t, r); answer.StatusCode != c.status || strings.TrimSpace(body) != c.answer {
				t.Errorf("%s %s: %s %q", c.method, c.path, answer.Status, body)
			}
		}
	})
}

func TestFile(t *testing.T) {
	content := strings.Repeat("a readme of some length\n", 10_000)
	t.Chdir(t.TempDir())
	if err := os.WriteFile("README.md", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	serving.OnBoth(t, application(io.Discard, serving.Patience), func(t *testing.T, s *serving.Server) {
		if answer, body := s.Get(t, "/readme"); body != content || answer.ContentLength != int64(len(content)) {
			t.Errorf("%s, %d bytes", answer.Status, len(body))
		}
		answer, body := s.Do(t, serving.NewRequest(t, "GET", s.URL+"/readme", nil, "Range", "bytes=-7"))
		if answer.StatusCode != 206 || body != "length\n" {
			t.Errorf("range: %s %q", answer.Status, body)
		}
		answer, packed := s.Do(t, serving.NewRequest(t, "GET", s.URL+"/readme", nil, "Accept-Encoding", "gzip"))
		if answer.Header.Get("Content-Encoding") != "gzip" || len(packed) > len(content)/10 {
			t.Errorf("%d bytes, header %v", len(packed), answer.Header)
		}
		r, err := gzip.NewReader(strings.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); err != nil || string(b) != content {
			t.Errorf("%d bytes unpacked, %v", len(b), err)
		}
	})
}

func TestTimeout(t *testing.T) {
	serving.OnBoth(t, application(io.Discard, 20*time.Millisecond), func(t *testing.T, s *serving.Server) {
		if answer, body := s.Get(t, "/slow"); answer.StatusCode != 503 || body != "{\"message\":\"Service Unavailable\"}\n" {
			t.Errorf("%s %q", answer.Status, body)
		}
	})
}

// The older middleware, http.TimeoutHandler in disguise, answers while the
// handler still runs, which then writes to nobody. One request that is too late
// is all that an Echo takes under the race detector: it uses contexts again
// that such a handler still has.
func TestOlderTimeout(t *testing.T) {
	goOn, late := make(chan struct{}), make(chan error)
	e := echo.New()
	within := func(timeout time.Duration) echo.MiddlewareFunc {
		//lint:ignore SA1019 many programs have it
		return middleware.TimeoutWithConfig(middleware.TimeoutConfig{Timeout: timeout, ErrorMessage: "too late"})
	}
	e.GET("/slow", func(c echo.Context) error {
		<-goOn
		_, err := c.Response().Write([]byte("late"))
		late <- err
		return nil
	}, within(20*time.Millisecond))
	e.GET("/quick", func(c echo.Context) error { return c.String(http.StatusOK, "quick") }, within(serving.Patience))
	s := serving.Start(t, &catamount.Server{Handler: e})
	if answer, body := s.Get(t, "/quick"); answer.StatusCode != 200 || body != "quick" {
		t.Errorf("%s %q", answer.Status, body)
	}
	if answer, body := s.Get(t, "/slow"); answer.StatusCode != 503 || body != "too late" {
		t.Errorf("%s %q", answer.Status, body)
	}
	goOn <- struct{}{}
	if err := serving.WaitFor(t, late); err == nil {
		t.Error("the late write did not fail")
	}
}

// What is flushed goes through the compressor and arrives while the handler
// still runs.
func TestFlushCompressed(t *testing.T) {
	next := make(chan struct{})
	e := application(io.Discard, serving.Patience)
	e.GET("/stream", func(c echo.Context) error {
		c.Response().Header().Set("Content-Type", "text/plain")
		for i := range 3 {
			fmt.Fprintf(c.Response(), "line %d\n", i)
			c.Response().Flush()
			<-next
		}
		return nil
	})
	serving.OnBoth(t, e, func(t *testing.T, s *serving.Server) {
		answer, err := s.Client.Do(serving.NewRequest(t, "GET", s.URL+"/stream", nil, "Accept-Encoding", "gzip"))
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

func TestRecover(t *testing.T) {
	var logged bytes.Buffer
	e := application(&logged, serving.Patience)
	e.GET("/panic", func(echo.Context) error { panic("a bug in the application") })
	serving.OnBoth(t, e, func(t *testing.T, s *serving.Server) {
		if answer, body := s.Get(t, "/panic"); answer.StatusCode != 500 || body != "{\"message\":\"Internal Server Error\"}\n" {
			t.Errorf("%s %q", answer.Status, body)
		}
		if !strings.Contains(logged.String(), "a bug in the application") {
			t.Errorf("logged %q", &logged)
		}
		logged.Reset()
	})
}
