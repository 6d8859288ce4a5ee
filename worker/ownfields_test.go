package worker

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// What is changed after WriteHeader changes nothing.
func TestHeaderIsFrozen(t *testing.T) {
	raw, _ := exchangeWith(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-A", "before")
		h["X-B"] = []string{"before"}
		w.WriteHeader(200)
		h.Set("X-A", "after")
		h["X-B"][0] = "after"
		h.Set("X-C", "after")
		h.Set("Content-Type", "after/after")
		h.Set("Content-Length", "1")
		hello(w, r)
	}, get)
	if strings.Contains(raw, "after") || strings.Count(raw, "before") != 2 || !strings.Contains(raw, "Content-Length: 13\r\n") {
		t.Errorf("answer %q", raw)
	}
}

// Nobody can split an answer by a field.
func TestInvalidFieldsAreDropped(t *testing.T) {
	raw, ts := exchangeWith(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h["X-Split"] = []string{"a\r\nSet-Cookie: stolen", "a\nSet-Cookie: stolen", "a\rb", "a\x00b", "good"}
		h["X Space"] = []string{"x"}
		h["X-Colon: y\r\nSet-Cookie"] = []string{"stolen"}
		h[""] = []string{"x"}
		h["X-Umlaut"] = []string{"\xc3\xa4"}
		hello(w, r)
	}, get)
	head, _, _ := strings.Cut(raw, "\r\n\r\n")
	if strings.Contains(raw, "stolen") || strings.Contains(raw, "X Space") || strings.Count(head, "X-Split") != 1 {
		t.Errorf("answer %q", raw)
	}
	if !strings.Contains(head, "\r\nX-Split: good\r\n") || !strings.Contains(head, "\r\nX-Umlaut: \xc3\xa4\r\n") {
		t.Errorf("good fields are missing: %q", head)
	}
	if line := ts.logs.next(t, "response header field dropped: invalid name or value"); line.attrs["name"] == nil {
		t.Errorf("line %v", line.attrs)
	}
}

// Nor by those that take another way: alone, before the answer, or behind it.
func TestInvalidFieldsElsewhereAreDropped(t *testing.T) {
	const split = "a\r\nSet-Cookie: stolen"
	for name, handler := range map[string]http.HandlerFunc{
		"alone": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", split) },
		"before": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", split)
			w.WriteHeader(103)
			w.Header().Del("Link")
		},
		"name before": func(w http.ResponseWriter, _ *http.Request) {
			w.Header()[split] = []string{"1"}
			w.WriteHeader(103)
			clear(w.Header())
		},
		"trailer": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "X-A")
			w.(http.Flusher).Flush()
			w.Header().Set("X-A", split)
		},
		"later trailer": func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			w.Header().Set(http.TrailerPrefix+"X-A", split)
		},
		"later name": func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			w.Header()[http.TrailerPrefix+split] = []string{"1"}
		},
		"Connection": func(w http.ResponseWriter, _ *http.Request) { w.Header()["Connection"] = []string{"close", split} },
		"Keep-Alive": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Keep-Alive", split) },
		"Date":       func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Date", split) },
	} {
		t.Run(name, func(t *testing.T) {
			raw, ts := exchangeWith(t, handler, get)
			if strings.Contains(raw, "stolen") || !strings.Contains(raw, "HTTP/1.1 200 OK\r\n") {
				t.Errorf("answer %q", raw)
			}
			if n, lines := ts.countLogged("response header field dropped: invalid name or value"); n != 1 {
				t.Errorf("%d lines: %v", n, lines)
			}
			if n := ts.Stats().DroppedFields; n != 1 {
				t.Errorf("%d dropped", n)
			}
		})
	}
}

// The number of fields costs no more than their bytes do: they may be another
// server's.
func TestManyFields(t *testing.T) {
	const many = 60_000
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		for i := range many {
			w.Header()[fmt.Sprintf("X-%d", i)] = []string{"y"}
		}
		hello(w, r)
	})
	c := ts.dial()
	c.send(get, get)
	for range 2 {
		if a := c.want(200, "Hello, World!"); len(a.Header) < many {
			t.Errorf("%d fields", len(a.Header))
		}
	}
}
