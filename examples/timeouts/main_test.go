package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/catamount-server/catamount/examples/internal/serving"
)

func TestMain(m *testing.M) { serving.Main(m) }

const short = 20 * time.Millisecond

func TestTooLate(t *testing.T) {
	serving.OnBoth(t, limited(short, nil), func(t *testing.T, s *serving.Server) {
		began := time.Now()
		answer, body := s.Get(t, "/slow")
		if answer.StatusCode != http.StatusServiceUnavailable || body != "too late\n" || time.Since(began) < short {
			t.Errorf("%s %q after %v", answer.Status, body, time.Since(began))
		}
		// The connection is as good as before.
		reused := false
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }})
		answer, body = s.Do(t, serving.NewRequest(t, "POST", s.URL+"/small", strings.NewReader("hello")).WithContext(ctx))
		if answer.StatusCode != http.StatusOK || body != "5 bytes\n" || !reused {
			t.Errorf("afterwards: %s %q, connection reused: %t", answer.Status, body, reused)
		}
	})
}

// A handler in time answers through http.TimeoutHandler as without it.
func TestInTime(t *testing.T) {
	handler := http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		w.Header().Add("Field", "one")
		w.Header().Add("Field", "two")
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, "%s, %v", body, err)
	}), serving.Patience, "")
	serving.OnBoth(t, handler, func(t *testing.T, s *serving.Server) {
		answer, body := s.Do(t, serving.NewRequest(t, "POST", s.URL, strings.NewReader("hello")))
		if answer.StatusCode != http.StatusTeapot || body != "hello, <nil>" || answer.ContentLength != 12 || strings.Join(answer.Header["Field"], " ") != "one two" {
			t.Errorf("%s %q %v", answer.Status, body, answer.Header)
		}
	})
}

// A handler that goes on after its time can do no harm, whatever it touches:
// the race detector watches.
func TestLateHandler(t *testing.T) {
	type outcome struct {
		cause, write, read error
		target             string
	}
	goOn, outcomes := make(chan struct{}), make(chan outcome)
	handler := http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		<-goOn
		w.Header().Set("Late", "yes")
		var o outcome
		_, o.write = io.WriteString(w, "late")
		_, o.read = io.Copy(io.Discard, r.Body)
		o.cause = context.Cause(r.Context())
		o.target = r.Method + " " + r.URL.Path + " " + r.Header.Get("Field") + " " + r.Host
		outcomes <- o
	}), short, "too late")
	serving.OnBoth(t, handler, func(t *testing.T, s *serving.Server) {
		for _, size := range []int{10, 1000, 150_000} { // the last one is in a file
			r := serving.NewRequest(t, "POST", s.URL+"/path", bytes.NewReader(make([]byte, size)), "Field", "value")
			if answer, body := s.Do(t, r); answer.StatusCode != 503 || body != "too late" {
				t.Errorf("%d bytes: %s %q", size, answer.Status, body)
			}
			goOn <- struct{}{}
			o := serving.WaitFor(t, outcomes)
			if o.cause != context.DeadlineExceeded || o.write != http.ErrHandlerTimeout || o.target != "POST /path value "+s.Addr {
				t.Errorf("%d bytes: %+v", size, o)
			}
			if o.read != http.ErrBodyReadAfterClose {
				t.Errorf("%d bytes: reading the body: %v", size, o.read)
			}
		}
	})
}

// A panic passes through http.TimeoutHandler to the server.
func TestAbort(t *testing.T) {
	handler := http.TimeoutHandler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), serving.Patience, "")
	serving.OnBoth(t, handler, func(t *testing.T, s *serving.Server) {
		if answer, err := s.Client.Do(serving.NewRequest(t, "GET", s.URL, nil)); !errors.Is(err, io.EOF) {
			t.Errorf("%v, %v", answer, err)
		}
	})
}

// http.TimeoutHandler answers 503 to a client that has left, too; nobody waits
// for the time to pass.
func TestClientLeaves(t *testing.T) {
	started, ended := make(chan struct{}), make(chan error)
	handler := http.TimeoutHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		started <- struct{}{}
		<-r.Context().Done()
		ended <- r.Context().Err()
	}), 10*serving.Patience, "")
	serving.OnBoth(t, handler, func(t *testing.T, s *serving.Server) {
		ctx, leave := context.WithCancel(t.Context())
		go func() {
			<-started
			leave()
		}()
		if answer, err := s.Client.Do(serving.NewRequest(t, "GET", s.URL, nil).WithContext(ctx)); err == nil {
			t.Error(answer.Status)
		}
		if err := serving.WaitFor(t, ended); err != context.Canceled {
			t.Errorf("the context's error is %v", err)
		}
	})
}

func TestMaxBytes(t *testing.T) {
	mux := limited(short, nil)
	mux.HandleFunc("/reader", func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, 1000)
		count(w, r)
	})
	serving.OnBoth(t, mux, func(t *testing.T, s *serving.Server) {
		for _, path := range []string{"/small", "/reader"} {
			for _, size := range []int{0, 1000, 1001, 500_000} {
				for _, chunked := range []bool{false, true} {
					var body io.Reader = bytes.NewReader(make([]byte, size))
					if chunked {
						body = io.MultiReader(body)
					}
					status, want := http.StatusOK, fmt.Sprintf("%d bytes\n", size)
					if size > 1000 {
						status, want = http.StatusRequestEntityTooLarge, "more than 1000 bytes\n"
					}
					answer, got := s.Do(t, serving.NewRequest(t, "POST", s.URL+path, body))
					if answer.StatusCode != status || got != want {
						t.Errorf("%s, %d bytes, chunked %t: %s %q", path, size, chunked, answer.Status, got)
					}
				}
			}
		}
	})
}

// A client that does not read meets the handler's own deadline.
func TestWriteDeadline(t *testing.T) {
	failed := make(chan error, 1)
	serving.OnBoth(t, limited(short, func(err error) { failed <- err }), func(t *testing.T, s *serving.Server) {
		conn, err := net.Dial("tcp", s.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET /much HTTP/1.1\r\nHost: h\r\n\r\n")
		if err := serving.WaitFor(t, failed); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the handler's error is %v", err)
		}
		// What has been sent does not look whole.
		_ = conn.SetReadDeadline(time.Now().Add(serving.Patience))
		all, err := io.ReadAll(conn)
		if errors.Is(err, os.ErrDeadlineExceeded) || bytes.HasSuffix(all, []byte("\r\n0\r\n\r\n")) {
			t.Errorf("%d bytes, %v", len(all), err)
		}
	})
}
