package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/catamount-server/catamount/examples/internal/serving"
)

// When the backend dies in the middle of an answer, the client gets a cut one,
// whatever the framing and the way of dying, and never one that looks whole.
func TestBackendDiesInTheMiddle(t *testing.T) {
	half := strings.Repeat("x", 100_000)
	begin := func(w http.ResponseWriter) {
		_, _ = io.WriteString(w, half)
		_ = http.NewResponseController(w).Flush()
	}
	for name, backend := range map[string]http.HandlerFunc{
		"length, abort": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(2*len(half)))
			begin(w)
			panic(http.ErrAbortHandler)
		},
		"length, too few bytes": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(2*len(half)))
			begin(w)
		},
		"chunks, abort": func(w http.ResponseWriter, _ *http.Request) {
			begin(w)
			panic(http.ErrAbortHandler)
		},
		"chunks, reset": func(w http.ResponseWriter, _ *http.Request) {
			begin(w)
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_ = conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		},
		"chunks, in a chunk": func(w http.ResponseWriter, _ *http.Request) {
			begin(w)
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = rw.WriteString("1000\r\nonly this")
			_ = rw.Flush()
			conn.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, backend, func(t *testing.T, c chain) {
				answer, err := c.proxy.Client.Do(serving.NewRequest(t, "GET", c.proxy.URL, nil))
				if err != nil {
					t.Fatal(err)
				}
				defer answer.Body.Close()
				// The reset may overtake bytes on their way.
				body, err := io.ReadAll(answer.Body)
				if !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("%d bytes, %v", len(body), err)
				}
				if name != "chunks, reset" && !strings.HasPrefix(string(body), half) {
					t.Errorf("only %d bytes", len(body))
				}
			})
		})
	}
}

// A connection whose answer was cut is not used again, and the bytes say
// nothing of an end.
func TestCutAnswerOnTheWire(t *testing.T) {
	onBoth(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half of it")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}), func(t *testing.T, c chain) {
		conn, err := net.Dial("tcp", c.proxy.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		r := bufio.NewReader(conn)
		all, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(string(all), "\r\n\r\na\r\nhalf of it\r\n") {
			t.Errorf("%q", all)
		}
	})
}
