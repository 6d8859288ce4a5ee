package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/catamount-server/catamount"
	"github.com/catamount-server/catamount/examples/internal/serving"
)

func TestMain(m *testing.M) { serving.Main(m) }

// chain is a client's way: the proxy's server, and the one behind it.
type chain struct{ proxy, backend *serving.Server }

// onBoth runs the test on a chain of Catamounts and on one of net/http.
func onBoth(t *testing.T, application http.Handler, test func(t *testing.T, c chain)) {
	t.Helper()
	for name, start := range map[string]func(testing.TB, http.Handler) *serving.Server{
		"catamount": func(t testing.TB, h http.Handler) *serving.Server {
			return serving.Start(t, &catamount.Server{Handler: h})
		},
		"net/http": serving.StartHTTP,
	} {
		t.Run(name, func(t *testing.T) {
			backend := start(t, application)
			transport := &http.Transport{MaxIdleConnsPerHost: 100, DisableCompression: true}
			handler := proxy(&url.URL{Scheme: "http", Host: backend.Addr}, transport)
			c := chain{start(t, handler), backend}
			handler.ErrorLog = log.New(c.proxy.Log, "proxy: ", 0)
			c.proxy.InFrontOf(backend)
			c.proxy.AtEnd(transport.CloseIdleConnections)
			test(t, c)
		})
	}
}

// mirror answers with the body it gets, and says in fields what else it saw.
func mirror(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Seen", fmt.Sprintf("%s %s %d %v", r.Method, r.RequestURI, r.ContentLength, r.TransferEncoding))
	h.Set("Seen-Host", r.Host)
	h.Set("Seen-For", r.Header.Get("X-Forwarded-For")+" "+r.Header.Get("X-Forwarded-Host")+" "+r.Header.Get("X-Forwarded-Proto"))
	h.Set("Seen-Hop", r.Header.Get("Connection")+r.Header.Get("Hop"))
	switch r.URL.Path {
	case "/204":
		w.WriteHeader(http.StatusNoContent)
	case "/304":
		h.Set("Etag", `"x"`)
		w.WriteHeader(http.StatusNotModified)
	case "/redirect":
		http.Redirect(w, r, "/elsewhere", http.StatusFound)
	}
	body, _ := io.ReadAll(r.Body) // all of it first: net/http answers in one direction only
	_, _ = w.Write(body)
}

func TestRequests(t *testing.T) {
	random := make([]byte, 3<<20)
	_, _ = rand.Read(random)
	big := string(random)
	onBoth(t, http.HandlerFunc(mirror), func(t *testing.T, c chain) {
		for _, want := range []struct {
			method, target, body string
			chunked              bool
			status               int
			seen                 string
		}{
			{"GET", "/?b=2&a=%20&c", "", false, 200, "GET /?b=2&a=%20&c 0 []"},
			{"GET", "/a%2Fb//c", "", false, 200, "GET /a%2Fb//c 0 []"},
			{"HEAD", "/", "", false, 200, "HEAD / 0 []"},
			{"POST", "/", "hello", false, 200, "POST / 5 []"},
			{"POST", "/", "", false, 200, "POST / 0 []"},
			{"POST", "/", "hello", true, 200, "POST / -1 [chunked]"},
			{"PUT", "/", big, false, 200, "PUT / 3145728 []"},
			{"PUT", "/", big, true, 200, "PUT / -1 [chunked]"},
			{"DELETE", "/204", "", false, 204, "DELETE /204 0 []"},
			{"GET", "/304", "", false, 304, "GET /304 0 []"},
			{"POST", "/redirect", "x", false, 302, "POST /redirect 1 []"},
		} {
			var body io.Reader = strings.NewReader(want.body)
			if want.chunked {
				body = io.MultiReader(body) // of which the client does not know the length
			}
			r := serving.NewRequest(t, want.method, c.proxy.URL+want.target, body, "Connection", "Hop", "Hop", "x")
			r.Host = "public.test"
			answer, got := c.proxy.Do(t, r)
			if answer.StatusCode != want.status || got != want.body && want.status == 200 || answer.Header.Get("Seen") != want.seen {
				t.Errorf("%s %s: %s, %d bytes, %v", want.method, want.target, answer.Status, len(got), answer.Header)
			}
			if h := answer.Header; h.Get("Seen-Host") != "public.test" || h.Get("Seen-For") != "127.0.0.1 public.test http" || h.Get("Seen-Hop") != "" {
				t.Errorf("%s %s: %v", want.method, want.target, h)
			}
		}
	})
}

// Trailers pass, those announced and those that are not.
func TestTrailers(t *testing.T) {
	trailers := make(chan http.Header, 1)
	onBoth(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		trailers <- r.Trailer
		w.Header().Set("Trailer", "Announced")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("Announced", "1")
		w.Header().Set(http.TrailerPrefix+"Surprise", "2")
	}), func(t *testing.T, c chain) {
		r := serving.NewRequest(t, "POST", c.proxy.URL, io.MultiReader(strings.NewReader("hello")))
		r.Trailer = http.Header{"Checksum": {"3"}}
		answer, body := c.proxy.Do(t, r)
		if body != "body" || len(answer.Trailer) != 2 || answer.Trailer.Get("Announced") != "1" || answer.Trailer.Get("Surprise") != "2" {
			t.Errorf("%q, trailers %v", body, answer.Trailer)
		}
		// On net/http the proxy has copied the request before its end was there,
		// and drops the values.
		if got := serving.WaitFor(t, trailers); c.proxy.Catamount != nil && got.Get("Checksum") != "3" {
			t.Errorf("the backend saw trailers %v", got)
		}
	})
}

// Each flushed line arrives while the backend's handler still runs.
func TestFlushing(t *testing.T) {
	next := make(chan struct{})
	onBoth(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for i := range 5 {
			fmt.Fprintf(w, "line %d\n", i)
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			<-next
		}
	}), func(t *testing.T, c chain) {
		answer, err := c.proxy.Client.Do(serving.NewRequest(t, "GET", c.proxy.URL, nil))
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if !slices.Equal(answer.TransferEncoding, []string{"chunked"}) {
			t.Errorf("Transfer-Encoding %q", answer.TransferEncoding)
		}
		lines := bufio.NewReader(answer.Body)
		for i := range 5 {
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

// 103 Early Hints arrives before the answer.
func TestEarlyHints(t *testing.T) {
	hinted := make(chan struct{})
	onBoth(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		<-hinted
		_, _ = io.WriteString(w, "hello")
	}), func(t *testing.T, c chain) {
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
				if code != http.StatusEarlyHints || header.Get("Link") != "</style.css>; rel=preload" {
					t.Errorf("%d %v", code, header)
				}
				hinted <- struct{}{}
				return nil
			},
		})
		if answer, body := c.proxy.Do(t, serving.NewRequest(t, "GET", c.proxy.URL, nil).WithContext(ctx)); answer.StatusCode != 200 || body != "hello" {
			t.Errorf("%s %q", answer.Status, body)
		}
	})
}

// A client that waits for leave to send its body gets it.
func TestExpectContinue(t *testing.T) {
	onBoth(t, http.HandlerFunc(mirror), func(t *testing.T, c chain) {
		c.proxy.Client.Transport.(*http.Transport).ExpectContinueTimeout = serving.Patience
		began := time.Now()
		r := serving.NewRequest(t, "POST", c.proxy.URL, strings.NewReader("hello"), "Expect", "100-continue")
		if answer, body := c.proxy.Do(t, r); answer.StatusCode != 200 || body != "hello" || time.Since(began) >= serving.Patience {
			t.Errorf("%s %q after %v", answer.Status, body, time.Since(began))
		}
	})
}

func TestBackendIsDown(t *testing.T) {
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("nobody there")
	}}
	handler := proxy(&url.URL{Scheme: "http", Host: "backend.test"}, transport)
	handler.ErrorLog = log.New(io.Discard, "", 0)
	serving.OnBoth(t, handler, func(t *testing.T, s *serving.Server) {
		for range 2 {
			if answer, body := s.Do(t, serving.NewRequest(t, "POST", s.URL, strings.NewReader("hello"))); answer.StatusCode != 502 || body != "" {
				t.Errorf("%s %q", answer.Status, body)
			}
		}
	})
}

// The client that leaves ends the request behind the proxy, before its answer
// has begun and in the middle of it.
func TestClientLeaves(t *testing.T) {
	for _, flushed := range []bool{false, true} {
		started, ended := make(chan struct{}), make(chan error)
		handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // net/http looks at the connection only then
			if flushed {
				_, _ = io.WriteString(w, "begun")
				_ = http.NewResponseController(w).Flush()
			}
			started <- struct{}{}
			<-r.Context().Done()
			ended <- context.Cause(r.Context())
		})
		t.Run(fmt.Sprintf("flushed=%t", flushed), func(t *testing.T) {
			onBoth(t, handler, func(t *testing.T, c chain) {
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				go func() {
					<-started
					leave()
				}()
				answer, err := c.proxy.Client.Do(serving.NewRequest(t, "POST", c.proxy.URL, strings.NewReader("hello")).WithContext(ctx))
				if err == nil {
					_, err = io.ReadAll(answer.Body)
					answer.Body.Close()
				}
				if err == nil {
					t.Error("a whole answer")
				}
				if err := serving.WaitFor(t, ended); err != context.Canceled {
					t.Errorf("the context's cause is %v", err)
				}
			})
		})
	}
}

// Many clients at once, each with bodies of its own, through few places.
func TestManyClients(t *testing.T) {
	backend := serving.Start(t, &catamount.Server{Handler: http.HandlerFunc(mirror), MaxThreads: 4})
	transport := &http.Transport{MaxIdleConnsPerHost: 100, DisableCompression: true}
	s := serving.Start(t, &catamount.Server{Handler: proxy(&url.URL{Scheme: "http", Host: backend.Addr}, transport), MaxThreads: 8})
	s.InFrontOf(backend)
	s.AtEnd(transport.CloseIdleConnections)
	const clients, requests = 50, 20
	var group sync.WaitGroup
	for i := range clients {
		group.Go(func() {
			for j := range requests {
				body := bytes.Repeat([]byte{byte(i), byte(j)}, 1+(i*j*977)%20_000)
				var reader io.Reader = bytes.NewReader(body)
				if j%2 == 1 {
					reader = io.MultiReader(reader)
				}
				answer, err := s.Client.Do(serving.NewRequest(t, "POST", s.URL, reader))
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(answer.Body)
				answer.Body.Close()
				if err != nil || !bytes.Equal(got, body) {
					t.Errorf("%d bytes for %d, %v", len(got), len(body), err)
				}
			}
		})
	}
	group.Wait()
	for _, server := range []*serving.Server{s, backend} {
		// The last answers may be complete before their handlers have returned.
		serving.Until(t, "all answers are counted", func() bool {
			stats := server.Catamount.Stats()
			return stats.RequestsCount == clients*requests && stats.Statuses["2xx"] == clients*requests
		})
	}
}
