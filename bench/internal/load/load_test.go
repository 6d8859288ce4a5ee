package load

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestRequestBytes(t *testing.T) {
	for _, r := range []Request{{}, {Headers: 7}, {Headers: 29, Close: true}, {Body: 5}, {Method: "PUT", Path: "/p", Body: 3}} {
		got, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(r.Bytes())))
		if err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		body, err := io.ReadAll(got.Body)
		if err != nil || len(body) != r.Body || got.Method != r.method() || got.URL.Path != r.path() || got.Close != r.Close {
			t.Errorf("%+v arrives as %s %s with %d bytes, close %v, error %v", r, got.Method, got.URL.Path, len(body), got.Close, err)
		}
		fields := len(got.Header)
		if r.Body > 0 {
			fields -= 2
		}
		if r.Close {
			fields -= 1
		}
		if fields != r.Headers {
			t.Errorf("%+v arrives with %d fields", r, fields)
		}
	}
}

func TestParseWrk(t *testing.T) {
	const whole = `Running 2s test @ http://127.0.0.1:9292/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   630.35us   80.01us   5.96ms   94.62%
    Req/Sec   101.50k     3.07k  106.45k    90.00%
  201994 requests in 2.00s, 25.04MB read
`
	r, err := parseWrk(whole + "Requests/sec: 100906.91\n")
	if err != nil || r != (Result{Requests: 201994, Seconds: 2}) || r.Clean() != nil || r.Rate() != 100997 {
		t.Errorf("%+v, error %v", r, err)
	}
	r, err = parseWrk(whole + "  Socket errors: connect 1, read 20, write 300, timeout 4000\n  Non-2xx or 3xx responses: 5\n")
	want := Result{Requests: 201994, Seconds: 2, Broken: 321, Timeouts: 4000, Bad: 5}
	if err != nil || r != want || r.Clean() == nil {
		t.Errorf("%+v, error %v, want %+v, which is not clean", r, err, want)
	}
	if r, err := parseWrk("  120 requests in 1.50m, 25.04MB read\n"); err != nil || r.Seconds != 90 {
		t.Errorf("a minute and a half: %+v, error %v", r, err)
	}
	if _, err := parseWrk("unable to connect to 127.0.0.1:1"); err == nil {
		t.Error("wrk without a total was accepted")
	}
	if got := parseWrkVersion("wrk debian/4.1.0-3+b2 [epoll] Copyright (C) 2012 Will Glozer\n"); got != "debian/4.1.0-3+b2" {
		t.Errorf("version %q", got)
	}
	if got := parseWrkVersion("?"); got != "unknown" {
		t.Errorf("version %q", got)
	}
}

// TestWrk: every kind of request, as wrk sends it.
func TestWrk(t *testing.T) {
	if WrkVersion() == "" {
		t.Skip("wrk is not installed")
	}
	for _, r := range []Request{{Headers: 29}, {Pipeline: 4, Headers: 7}, {Body: 5000, Close: true}} {
		var wrong atomic.Int64
		addr := serve(t, func(w http.ResponseWriter, got *http.Request) {
			body, err := io.ReadAll(got.Body)
			if err != nil || len(body) != r.Body || len(got.Header["Tracestate"]) != r.Headers/29 || got.Close != r.Close || got.Method != r.method() {
				wrong.Add(1)
			}
			hello(w, got)
		})
		result, err := Wrk{Directory: t.TempDir()}.Run(addr, r, 2, time.Second)
		if err != nil || result.Clean() != nil || wrong.Load() > 0 {
			t.Errorf("%+v: %+v, error %v; %d requests arrived otherwise", r, result, err, wrong.Load())
		}
	}
}

func serve(t *testing.T, h http.HandlerFunc) (addr string) {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func hello(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }

func TestLoops(t *testing.T) {
	addr := serve(t, hello)
	results := Loops{Addr: addr, Duration: 50 * time.Millisecond, Groups: []Group{
		{Conns: 2}, {Request: Request{Close: true}, Conns: 1}, {Request: Request{Pipeline: 4, Body: 10}, Conns: 1},
	}}.run()
	for i, r := range results {
		if err := r.Clean(); err != nil || r.Late > 4 || r.Latencies.Percentile(50) <= 0 || r.Latencies.Percentile(100) < r.Latencies.Percentile(50) {
			t.Errorf("group %d: %+v, error %v", i, r, err)
		}
	}
	if results[2].Requests%4 != 0 {
		t.Errorf("%d answers to batches of four", results[2].Requests)
	}
}

// TestLoopsCountWhatFails: a server must not win by answering errors, by
// hanging up or by saying nothing.
func TestLoopsCountWhatFails(t *testing.T) {
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		counted func(Result) bool
	}{
		"errors": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
			func(r Result) bool { return r.Bad == r.Requests && r.Bad > 0 }},
		"hanging up": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			func(r Result) bool { return r.Broken > 0 && r.Requests == 0 }},
		"silence": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			func(r Result) bool { return r.Timeouts > 0 && r.Requests == 0 && r.Latencies.Percentile(0) >= 50e3 }},
	} {
		l := Loops{Addr: serve(t, c.handler), Duration: 20 * time.Millisecond, Patience: 50 * time.Millisecond, Groups: []Group{{Conns: 1}}}
		if r := l.run()[0]; !c.counted(r) || r.Clean() == nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestLoopsFollowAnAnnouncedClose: what a server does not answer after
// "Connection: close" was not promised.
func TestLoopsFollowAnAnnouncedClose(t *testing.T) {
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		hello(w, r)
	})
	r := Loops{Addr: addr, Duration: 20 * time.Millisecond, Groups: []Group{{Request: Request{Pipeline: 4}, Conns: 1}}}.run()[0]
	if r.Bad != 0 || r.Timeouts != 0 || r.Requests == 0 {
		t.Errorf("%+v", r)
	}
}

// answerSize asks once, as scenarios do.
func answerSize(t *testing.T, addr string) int {
	conn, err := net.Dial("tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write(Request{Close: true}.Bytes())
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return len(answer) - len("Connection: close\r\n")
}

func runEngine(t *testing.T, s Steady) Result {
	e, err := newEngine(s)
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	r, err := e.run()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSteady(t *testing.T) {
	addr := serve(t, hello)
	s := Steady{Addr: addr, AnswerSize: answerSize(t, addr), Conns: 10, Duration: 100 * time.Millisecond}
	if r := runEngine(t, s); r.Clean() != nil || r.Requests < 10 || r.Latencies.Percentile(50) <= 0 {
		t.Errorf("as fast as it goes: %+v", r)
	}
	s.Rate = 500
	if r := runEngine(t, s); r.Clean() != nil || r.Requests != 50 {
		t.Errorf("at 500 a second for a tenth of it: %+v", r)
	}
	s.AnswerSize++
	s.Duration = time.Millisecond
	e, err := newEngine(s)
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	e.Rate = 0
	e.sendDue(0, 0)
	if e.underWay != 10 || e.resting.count != 0 {
		t.Errorf("%d requests under way, %d connections rest", e.underWay, e.resting.count)
	}
	for i := range e.conns {
		e.lose(&e.conns[i])
	}
	if e.underWay != 0 || e.result.Broken != 10 {
		t.Errorf("after all connections were lost %d requests are under way, %d broken", e.underWay, e.result.Broken)
	}
}

// TestSteadyChargesStalls: one stall of 200 ms must appear in the latencies of
// all requests that were due in it, although only one was under way.
func TestSteadyChargesStalls(t *testing.T) {
	const stall = 200 * time.Millisecond
	var n atomic.Int64
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 10 {
			time.Sleep(stall) // the stall that is to be seen
		}
		hello(w, r)
	})
	size := answerSize(t, addr)
	r := runEngine(t, Steady{Addr: addr, AnswerSize: size, Conns: 1, Rate: 1000, Duration: 300 * time.Millisecond})
	if r.Clean() != nil || r.Requests != 300 {
		t.Fatalf("%+v", r)
	}
	if half := float64(stall.Microseconds()) / 2 * 0.8; r.Latencies.Percentile(100) < 1.9*half || r.Latencies.Percentile(90) < half {
		t.Errorf("a stall of %v hardly shows: p90 %.0f µs, max %.0f µs", stall, r.Latencies.Percentile(90), r.Latencies.Percentile(100))
	}
}

// TestSteadyForgetsWhatIsLate: an answer that did not come in its run is no
// answer of the next.
func TestSteadyForgetsWhatIsLate(t *testing.T) {
	addr := serve(t, hello)
	e, err := newEngine(Steady{Addr: addr, AnswerSize: answerSize(t, addr), Conns: 2, Duration: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	e.sendDue(0, 0)
	e.abandon()
	if r, err := e.run(); err != nil || r.Requests != 0 || r.Timeouts != 0 || r.Clean() == nil {
		t.Errorf("a run after its connections were given up: %+v, error %v", r, err)
	}
}

func TestSteadyTellsOfErrors(t *testing.T) {
	addr := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) })
	if r := runEngine(t, Steady{Addr: addr, AnswerSize: answerSize(t, addr), Conns: 1, Duration: 10 * time.Millisecond}); r.Bad == 0 {
		t.Errorf("%+v", r)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Read(make([]byte, 1000))
			conn.Close()
		}
	}()
	defer l.Close()
	if r := runEngine(t, Steady{Addr: l.Addr().String(), AnswerSize: 100, Conns: 3, Duration: 10 * time.Millisecond}); r.Broken != 3 || r.Requests != 0 {
		t.Errorf("%+v", r)
	}
	for _, s := range []Steady{{Conns: 0, AnswerSize: 1}, {Conns: 1}, {Conns: 1, AnswerSize: 1, Request: Request{Pipeline: 2}}} {
		text, _ := json.Marshal(s)
		if err := BeSteady(text, strings.NewReader(""), io.Discard); err == nil {
			t.Errorf("%+v was accepted", s)
		}
	}
}

// crowd plays a crowd and returns its state at the beginning, and after a word.
func crowd(t *testing.T, c Crowd, meanwhile func()) (first, then CrowdState) {
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	words, in := io.Pipe()
	out, lines := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- BeCrowd(text, words, lines)
		lines.Close()
	}()
	decoder := json.NewDecoder(out)
	if err := decoder.Decode(&first); err != nil {
		t.Fatalf("%v: %v", err, <-ended)
	}
	meanwhile()
	fmt.Fprintln(in, "state")
	if err := decoder.Decode(&then); err != nil {
		t.Fatal(err)
	}
	in.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	return first, then
}

func TestCrowds(t *testing.T) {
	release := make(chan struct{})
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			<-release
		}
		hello(w, r)
	})
	defer close(release)
	for _, kind := range []Kind{Idle, Waiting, Heads, Bodies, Readers} {
		first, then := crowd(t, Crowd{Kind: kind, Addr: addr, Path: map[Kind]string{Waiting: "/wait"}[kind], N: 5}, func() {})
		if first.Alive != 5 || then.Alive < 4 || then.CPU <= 0 { // a reader of so little is done at once
			t.Errorf("%s: %+v, then %+v", kind, first, then)
		}
	}
	if first, _ := crowd(t, Crowd{Kind: Gone, Addr: addr, N: 5}, func() {}); first.Alive != 0 {
		t.Errorf("gone: %+v", first)
	}
	if err := BeCrowd([]byte(`{"Kind":"angry","Addr":"127.0.0.1:1"}`), strings.NewReader(""), io.Discard); err == nil {
		t.Error("angry clients were accepted")
	}
}

// TestIdleCrowdProvesItself: memory saved by closing connections is not saved.
func TestIdleCrowdProvesItself(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(hello))
	defer s.Close()
	_, then := crowd(t, Crowd{Kind: Idle, Addr: s.Listener.Addr().String(), N: 5}, s.CloseClientConnections)
	if then.Alive != 0 || then.Closed != 5 {
		t.Errorf("%+v of connections that the server has closed", then)
	}
}
