package main

import (
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/catamount-server/catamount"
	"github.com/catamount-server/catamount/examples/internal/serving"
)

func TestMain(m *testing.M) { serving.Main(m) }

// All handlers of net/http/pprof answer as they should. A nil handler is
// http.DefaultServeMux.
func TestProfiles(t *testing.T) {
	s := serving.Start(t, &catamount.Server{})
	for path, want := range map[string]string{
		"/debug/pprof/":                  "<html>",
		"/debug/pprof/cmdline":           "",
		"/debug/pprof/goroutine?debug=2": "net/http/pprof.handler.ServeHTTP",
		"/debug/pprof/heap?debug=1":      "heap profile:",
		"/debug/pprof/allocs?debug=1":    "heap profile:",
		"/debug/pprof/block?debug=1":     "--- contention:",
		"/debug/pprof/mutex?debug=1":     "--- mutex:",
		"/debug/pprof/threadcreate":      "gzip: threadcreate",
		"/debug/pprof/goroutine":         "gzip: goroutine",
		"/debug/pprof/heap?seconds=1":    "gzip: objects",
		"/debug/pprof/symbol?0x1":        "num_symbols: 1",
	} {
		answer, body := s.Get(t, path)
		if kind, ok := strings.CutPrefix(want, "gzip: "); ok {
			want, body = kind, gunzip(t, body)
		}
		if answer.StatusCode != http.StatusOK || !strings.Contains(body, want) || body == "" {
			t.Errorf("%s: %s %.200q", path, answer.Status, body)
		}
	}
	if answer, _ := s.Get(t, "/debug/pprof/nothing"); answer.StatusCode != 404 {
		t.Errorf("an unknown profile: %s", answer.Status)
	}
}

func gunzip(t *testing.T, packed string) string {
	r, err := gzip.NewReader(strings.NewReader(packed))
	if err != nil {
		t.Error(err)
		return ""
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// A profile of the processor, while others are served.
func TestProcessorProfile(t *testing.T) {
	s := serving.Start(t, &catamount.Server{MaxThreads: 2})
	others := make(chan int)
	stop := make(chan struct{})
	go func() {
		client := serving.NewClient(t)
		n := 0
		defer func() { others <- n }()
		for ; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			answer, err := client.Get(s.URL + "/debug/pprof/cmdline")
			if err != nil || answer.StatusCode != 200 {
				t.Error(answer, err)
				return
			}
			answer.Body.Close()
		}
	}()
	began := time.Now()
	answer, body := s.Get(t, "/debug/pprof/profile?seconds=1")
	took := time.Since(began)
	close(stop)
	if answer.StatusCode != http.StatusOK || took < time.Second || answer.Header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("%s after %v, %v", answer.Status, took, answer.Header)
	}
	if profile := gunzip(t, body); !strings.Contains(profile, "nanoseconds") || !strings.Contains(profile, "worker.(*Server)") {
		t.Errorf("a profile of %d bytes without the server", len(profile))
	}
	t.Logf("a profile of %d bytes; %d requests meanwhile", len(body), serving.WaitFor(t, others))
}

func TestTrace(t *testing.T) {
	s := serving.Start(t, &catamount.Server{})
	answer, body := s.Get(t, "/debug/pprof/trace?seconds=1")
	if answer.StatusCode != http.StatusOK || !strings.HasPrefix(body, "go 1.") || !strings.Contains(body[:16], " trace\x00") {
		t.Errorf("%s %.40q", answer.Status, body)
	}
	t.Logf("a trace of %d bytes", len(body))
}

// Who gives up waiting for a profile ends it: it would keep others away.
func TestAbandonedProfile(t *testing.T) {
	s := serving.Start(t, &catamount.Server{})
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		_, err := s.Client.Do(serving.NewRequest(t, "GET", s.URL+"/debug/pprof/profile?seconds=3600", nil).WithContext(ctx))
		left <- err
	}()
	profile := func() int {
		answer, _ := s.Get(t, "/debug/pprof/profile?seconds=1")
		return answer.StatusCode
	}
	serving.Until(t, "the long profile has begun", func() bool { return s.Catamount.Stats().BusyThreads == 1 })
	leave()
	if serving.WaitFor(t, left) == nil {
		t.Error("an answer")
	}
	serving.Until(t, "another profile can be taken", func() bool { return profile() == http.StatusOK })
	if gone := s.Catamount.Stats().Gone; gone != 1 {
		t.Errorf("%d clients have left", gone)
	}
}
