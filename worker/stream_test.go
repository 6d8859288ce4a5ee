package worker

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/catamount-server/catamount/parser"
)

// streaming makes every request with a body one that streams.
func streaming(o *Options) { o.StreamRequest = func(*http.Request) bool { return true } }

// withMode is for what must hold with streamed and with buffered bodies, in
// reactor and in blocking mode.
func withModes(t *testing.T, test func(t *testing.T, mode func(*Options))) {
	for name, mode := range map[string]func(*Options){
		"buffered":           func(*Options) {},
		"streamed":           streaming,
		"buffered, blocking": func(o *Options) { o.QueueRequests = false },
		"streamed, blocking": func(o *Options) { o.QueueRequests = false; streaming(o) },
	} {
		t.Run(name, func(t *testing.T) { test(t, mode) })
	}
}

const (
	chunkedHead = "POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
	echoTrailer = "Trailer: X-Sum\r\n"
)

// echoBody answers with the body and the trailer.
func echoBody(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s|%v|%v", body, err, r.Trailer.Get("X-Sum"))
}

// The handler runs while the client still sends, and the client reads while the
// handler still does.
func TestStreamBothWays(t *testing.T) {
	for name, message := range map[string]struct {
		head   string
		pieces []string // as sent
	}{
		"length":  {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n", []string{"one", "two", "six"}},
		"chunked": {chunkedHead, []string{"3\r\none\r\n", "3\r\ntwo\r\n", "3\r\nsix\r\n0\r\n\r\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
				control := http.NewResponseController(w)
				_ = control.EnableFullDuplex()
				piece := make([]byte, 3)
				for {
					if _, err := io.ReadFull(r.Body, piece); err != nil {
						return
					}
					_, _ = w.Write(piece)
					if err := control.Flush(); err != nil {
						t.Error(err)
					}
				}
			}, streaming)
			c := ts.dial()
			for range 2 { // the connection lives on
				c.send(message.head)
				var answer *http.Response
				for i, piece := range message.pieces {
					c.send(piece)
					if i == 0 {
						var err error
						if answer, err = http.ReadResponse(c.reader, nil); err != nil {
							t.Fatal(err)
						}
					}
					got := make([]byte, 3)
					if _, err := io.ReadFull(answer.Body, got); err != nil || !strings.Contains(piece, string(got)) {
						t.Fatalf("piece %q came back as %q, %v", piece, got, err)
					}
				}
				if rest, err := io.ReadAll(answer.Body); len(rest) > 0 || err != nil {
					t.Fatalf("%q, %v after the last piece", rest, err)
				}
			}
			if n := ts.Stats().Streams; n != 2 {
				t.Errorf("%d streams counted, want 2", n)
			}
		})
	}
}

// Bodies are the same wherever they are cut, and what follows them is the next
// request.
func TestBodiesAtEverySplit(t *testing.T) {
	whole := "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello" +
		"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n" + echoTrailer + "\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 7\r\n\r\n" +
		get
	withModes(t, func(t *testing.T, mode func(*Options)) {
		ts := startServer(t, echoBody, mode)
		for cut := range len(whole) {
			c := ts.dial()
			c.send(whole[:cut])
			c.send(whole[cut:])
			c.want(200, "hello|<nil>|")
			c.want(200, "abcde|<nil>|7")
			c.want(200, "|<nil>|")
			c.Close()
		}
	})
}

// 100 Continue is sent when the handler first reads; never to a client that does
// not ask, never after the answer has begun.
func TestContinueIsLazy(t *testing.T) {
	const expect = "POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
	reads := make(chan struct{})
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/late":
			<-reads
		case "/refuse":
			w.WriteHeader(http.StatusForbidden)
			return
		case "/itself":
			w.WriteHeader(http.StatusContinue)
		case "/early":
			_, _ = io.WriteString(w, "early|")
			_ = http.NewResponseController(w).Flush()
		}
		echoBody(w, r)
	}, streaming)
	t.Run("when the handler reads", func(t *testing.T) {
		c := ts.dial()
		c.send(fmt.Sprintf(expect, "/late"))
		ts.waitState(StateQueued, 1)
		if n := ts.Stats().BytesOut; n != 0 {
			t.Errorf("%d bytes were sent before the handler read", n)
		}
		close(reads)
		line := make([]byte, len("HTTP/1.1 100 Continue\r\n\r\n"))
		if _, err := io.ReadFull(c.reader, line); err != nil || string(line) != "HTTP/1.1 100 Continue\r\n\r\n" {
			t.Fatalf("%q, %v", line, err)
		}
		c.send("body")
		c.want(200, "body|<nil>|")
		c.send(get)
		c.want(200, "|<nil>|")
	})
	t.Run("not when it refuses", func(t *testing.T) {
		c := ts.dial()
		c.send(fmt.Sprintf(expect, "/refuse"))
		if a := c.want(403, ""); !a.Close {
			t.Error("the connection goes on, though nobody knows whether the body comes")
		}
		c.wantEnd()
	})
	t.Run("not behind the answer's head", func(t *testing.T) {
		c := ts.dial()
		c.send(fmt.Sprintf(expect, "/early"))
		a, err := http.ReadResponse(c.reader, nil) // before there is a body
		if err != nil || a.StatusCode != 200 || !a.Close {
			t.Fatalf("answer %v, %v", a, err)
		}
		c.send("body")
		if body, err := io.ReadAll(a.Body); string(body) != "early|body|<nil>|" || err != nil {
			t.Errorf("%q, %v", body, err)
		}
	})
	t.Run("not again when the handler has sent it", func(t *testing.T) {
		c := ts.dial()
		c.send(fmt.Sprintf(expect, "/itself"))
		if a := c.answer(); a.StatusCode != 100 {
			t.Errorf("answer %d", a.StatusCode)
		}
		c.send("body")
		if a := c.want(200, "body|<nil>|"); a.Close {
			t.Error("the connection does not go on")
		}
	})
	t.Run("not when the body is here", func(t *testing.T) {
		c := ts.dial()
		c.send(fmt.Sprintf(expect, "/"), "body")
		c.want(200, "body|<nil>|")
	})
	t.Run("not to another expectation", func(t *testing.T) {
		c := ts.dial()
		c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: more\r\n\r\n")
		if a := c.answer(); a.StatusCode != 417 {
			t.Errorf("answer %d", a.StatusCode)
		}
	})
}

// A reader that comes too late for 100 Continue: while it waits for the answer's
// lock the head may not promise that the connection goes on, because the client
// will keep its body, and its next request is not that.
func TestContinueTooLate(t *testing.T) {
	ended := make(chan struct{})
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		response := w.(*response)
		body := response.x.streamed()
		response.mu.Lock()
		go func() {
			defer close(ended)
			_, _ = r.Body.Read(make([]byte, 10))
		}()
		for range 1000 { // until it waits, very likely
			runtime.Gosched()
		}
		if !body.spoils() {
			t.Error("the client is taken for one that has been told to send its body")
		}
		response.mu.Unlock()
		_ = r.Body.Close()
		<-ended
	}, streaming)
	c := ts.dial()
	c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
	waitFor(t, ended)
}

// What the handler leaves of a body is thrown away when it is little, and ends
// the connection when it is much; the answer arrives either way.
func TestUnreadBody(t *testing.T) {
	const little, much = discardLimit - 1000, 200 << 20
	lengthHead := func(n int) string { return fmt.Sprintf("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", n) }
	chunks := strings.Repeat("400\r\n"+strings.Repeat("x", 1024)+"\r\n", 100)
	for name, test := range map[string]struct {
		first, later string
		goesOn       bool
		endless      bool // the client writes until it fails
	}{
		"length, at once":    {lengthHead(little) + strings.Repeat("x", little), "", true, false},
		"length, later":      {lengthHead(little) + "some", strings.Repeat("x", little-4), true, false},
		"length, most later": {lengthHead(discardLimit+4) + "some", strings.Repeat("x", discardLimit), true, false},
		"chunked, at once":   {chunkedHead + chunks + "0\r\n\r\n", "", true, false},
		"chunked, later":     {chunkedHead, chunks + "0\r\n\r\n", false, false}, // nobody knows how much comes
		"length, much":       {lengthHead(much), "", false, true},
		"chunked, much":      {chunkedHead, "", false, true},
		"chunked, broken":    {chunkedHead + "zz\r\n", "", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			ts := startServer(t, hello, streaming)
			c := ts.dial()
			c.send(test.first)
			if test.endless {
				sent := make(chan error, 1)
				go func() {
					for range much / (100 << 10) {
						if _, err := io.WriteString(c, chunks); err != nil {
							sent <- err
							return
						}
					}
					sent <- nil
				}()
				a := c.want(200, "Hello, World!")
				if strings.HasPrefix(name, "length") && !a.Close {
					t.Error("it does not say that the connection ends")
				}
				if err := waitFor(t, sent); err == nil {
					t.Error("all of it was read")
				}
				return
			}
			if a := c.want(200, "Hello, World!"); a.Close == test.goesOn {
				t.Errorf("the answer says close: %v", a.Close)
			}
			c.send(test.later)
			if !test.goesOn {
				c.wantEnd()
				return
			}
			c.send(get)
			c.want(200, "Hello, World!")
			ts.waitState(StateIdle, 1)
		})
	}
}

// What goes wrong with a body reaches its reader, the log and the counters.
func TestStreamFailures(t *testing.T) {
	var tooLarge *http.MaxBytesError
	var malformed *parser.Error
	for name, test := range map[string]struct {
		send   string
		end    func(c *client)
		is     func(error) bool
		line   string
		counts func(Stats) uint64
	}{
		"the client leaves": {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nsome", func(c *client) { c.Close() },
			func(err error) bool { return err == io.ErrUnexpectedEOF }, "client left in the middle of a request", func(st Stats) uint64 { return st.Vanished }},
		"the client resets": {chunkedHead + "4\r\nsome\r\n", func(c *client) { c.reset() },
			func(err error) bool { return failureOf(err) == FailureReset }, "connection failed in the middle of a request", func(st Stats) uint64 { return st.Vanished }},
		"no chunk": {chunkedHead + "4\r\nsome\r\nxyz\r\n", nil,
			func(err error) bool { return errors.As(err, &malformed) }, "request body refused while the handler read it", func(st Stats) uint64 { return st.ParseErrors["bad_chunk_size"] }},
		"too large": {chunkedHead + "4\r\nsome\r\n10\r\n0123456789abcdef\r\n", nil,
			func(err error) bool { return errors.As(err, &tooLarge) && tooLarge.Limit == 10 }, "request body refused while the handler read it", func(st Stats) uint64 { return st.ParseErrors["body_too_large"] }},
	} {
		t.Run(name, func(t *testing.T) {
			type result struct {
				body     string
				err      error
				again    error
				canceled bool
			}
			results := make(chan result, 1)
			ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				_, again := r.Body.Read(make([]byte, 1))
				results <- result{string(body), err, again, r.Context().Err() != nil}
				w.WriteHeader(http.StatusBadRequest)
			}, streaming, func(o *Options) { o.Limits.Body = 10 })
			c := ts.dial()
			c.send(test.send)
			if test.end != nil {
				ts.waitState(StateQueued, 1)
				ts.until("its bytes have been read", func() bool { return ts.Stats().BytesIn >= uint64(len(test.send)) })
				test.end(c)
			}
			r := waitFor(t, results)
			want := "some"
			if name == "too large" {
				want = "some012345" // up to the limit, however the bytes were cut into pieces
			}
			if r.body != want || !test.is(r.err) || r.again != r.err {
				t.Errorf("read %q, then %v, then %v", r.body, r.err, r.again)
			}
			if test.end != nil && !r.canceled {
				t.Error("the context of a request whose client has gone goes on")
			}
			if test.end == nil {
				if a := c.answer(); a.StatusCode != 400 || !a.Close {
					t.Errorf("answer %d, close %v", a.StatusCode, a.Close)
				}
				c.wantEnd()
			}
			ts.logs.next(t, test.line)
			if n := test.counts(ts.Stats()); n != 1 {
				t.Errorf("counted %d times", n)
			}
		})
	}
}

// A handler that waits for its client occupies no place.
func TestStreamsHoldNoPlace(t *testing.T) {
	const streams = 20
	ts := startServer(t, echoBody, streaming, func(o *Options) { o.MaxThreads = 1 })
	var slow []*client
	for range streams {
		c := ts.dial()
		c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbo")
		slow = append(slow, c)
	}
	c := ts.dial()
	for range 3 {
		c.send(get)
		c.want(200, "|<nil>|")
	}
	for _, s := range slow {
		s.send("dy")
		s.want(200, "body|<nil>|")
		s.send(get)
		s.want(200, "|<nil>|")
	}
	ts.until("only the one place is left", func() bool { st := ts.pool.Stats(); return st.Detached == 0 && st.Running <= 1 })
}

// Whoever reads on after the handler has returned gets an error, and nothing of
// the next request.
func TestStreamAfterTheHandler(t *testing.T) {
	ends := make(chan error, 2)
	bodies := make(chan io.Reader, 1)
	reading := make(chan struct{})
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			return
		}
		go func() {
			close(reading)
			_, err := r.Body.Read(make([]byte, 100)) // waits
			ends <- err
		}()
		<-reading
		bodies <- r.Body
	}, streaming)
	c := ts.dial()
	c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n")
	c.want(200, "")
	if err := waitFor(t, ends); err != http.ErrBodyReadAfterClose {
		t.Errorf("the reader got %v", err)
	}
	c.send("body", get)
	c.want(200, "")
	if n, err := (<-bodies).Read(make([]byte, 100)); n != 0 || err != http.ErrBodyReadAfterClose {
		t.Errorf("later: %d, %v", n, err)
	}
}

// A body that has ended gives its buffer back and keeps nothing of it, whoever
// asks later: it is another client's by then.
func TestStreamKeepsNoBuffer(t *testing.T) {
	writers := make(chan http.ResponseWriter, 1)
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadFull(r.Body, make([]byte, 2))
		writers <- w
	}, streaming)
	c := ts.dial()
	c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody", get[:5])
	c.want(200, "")
	w := (<-writers).(*response)
	if _, _, err := w.Hijack(); err != errFinished {
		t.Errorf("Hijack after the handler: %v", err)
	}
	if unread, behind := w.x.streamed().end(http.ErrHijacked); len(unread)+len(behind) > 0 {
		t.Errorf("a body that has ended still has %q and %q", unread, behind)
	}
}

// Closing the body ends a read that waits.
func TestStreamCloseEndsRead(t *testing.T) {
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		end := make(chan error)
		go func() { _, err := io.ReadAll(r.Body); end <- err }()
		_ = r.Body.Close()
		fmt.Fprint(w, <-end == http.ErrBodyReadAfterClose)
	}, streaming)
	c := ts.dial()
	c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n")
	c.want(200, "true")
}

// What was received belongs to whoever takes the connection, body or not.
func TestHijackStreamed(t *testing.T) {
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadFull(r.Body, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		conn, both, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		if _, err := r.Body.Read(make([]byte, 1)); err == nil {
			t.Error("the body can still be read")
		}
		rest := make([]byte, len("b\r\n5\r\nraw"))
		_, err = io.ReadFull(both, rest)
		fmt.Fprintf(both, "%q %v", rest, err)
		_ = both.Flush()
	}, streaming)
	c := ts.dial()
	c.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n5\r\n")
	c.send("raw")
	if got, want := c.rest(), `"b\r\n5\r\nraw" <nil>`; got != want {
		t.Errorf("the new owner has %s, want %s", got, want)
	}
}

// A client that has shut down its side behind the body has not gone yet when
// the handler has not read it; it gets its answer.
func TestStreamHalfClosed(t *testing.T) {
	for name, request := range map[string]string{
		"length":  "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100_000),
		"chunked": chunkedHead + strings.Repeat("3e8\r\n"+strings.Repeat("x", 1000)+"\r\n", 100) + "0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			goOn := make(chan struct{})
			ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
				<-goOn
				before := r.Context().Err()
				n, err := io.Copy(io.Discard, r.Body)
				<-r.Context().Done() // now it is certain that nothing else comes
				fmt.Fprint(w, before, n, err)
			}, streaming)
			c := ts.dial()
			c.send(request)
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			ts.until("the server has seen the end", func() bool {
				seen := make(chan bool, 1)
				_ = ts.reactor.Do(func() {
					found := false
					ts.reactor.Each(func(sl *slot, _ bool) { found = found || sl.Seen()&4 != 0 })
					seen <- found
				})
				return <-seen
			})
			close(goOn)
			if a := c.answer(); a.body != "<nil> 100000 <nil>" {
				t.Errorf("answer %q", a.body)
			}
		})
	}
}

// The application's predicate sees the head; its panic harms nobody.
func TestStreamPredicate(t *testing.T) {
	var asked []string
	ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		_, streamed := r.Body.(*stream)
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, streamed)
	}, func(o *Options) {
		o.StreamRequest = func(r *http.Request) bool {
			asked = append(asked, r.Method+r.Header.Get("X"))
			if r.Header.Get("X") == "panic" {
				panic("at the predicate")
			}
			return r.Header.Get("X") == "yes"
		}
	})
	c := ts.dial()
	for _, x := range []string{"yes", "no", "panic"} {
		c.send(post("body", "X: "+x))
		c.want(200, fmt.Sprint(x == "yes"))
	}
	c.send(get)
	c.want(200, "false")
	ts.logs.next(t, "StreamRequest panicked; the request is buffered")
	ts.stop()
	if want := []string{"POSTyes", "POSTno", "POSTpanic"}; !slices.Equal(asked, want) {
		t.Errorf("asked about %q, want %q", asked, want)
	}
}

// However a handler reads, what is behind its body is the next request.
func TestPipelinedBehindStreams(t *testing.T) {
	const size = 250_000
	body := strings.Repeat("x", size)
	for name, request := range map[string]string{
		"length":  fmt.Sprintf("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", size, body),
		"chunked": fmt.Sprintf("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", size, body),
	} {
		for _, piece := range []int{1000, 16 << 10, 64 << 10, 256 << 10, 1 << 20} {
			for _, reads := range []int{1, 2, 1000} {
				t.Run(fmt.Sprint(name, " by ", piece, ", ", reads, " reads"), func(t *testing.T) {
					here := make(chan struct{})
					ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
						if r.Method == http.MethodPost {
							<-here
						}
						p := make([]byte, piece)
						for range reads {
							if _, err := r.Body.Read(p); err != nil {
								break
							}
						}
					}, streaming)
					c := ts.dial()
					sent := make(chan error, 1)
					go func() {
						_, err := io.WriteString(c, request+post(body)+get)
						sent <- err
					}()
					ts.waitState(StateQueued, 1)
					close(here)
					for i := range 3 {
						a := c.answer()
						if a.StatusCode != 200 {
							t.Fatalf("answer %d: %d", i, a.StatusCode)
						}
						if a.Close { // it may, where the end of a body is not here
							if name != "chunked" || i != 0 {
								t.Fatalf("answer %d ends the connection", i)
							}
							return
						}
					}
					if err := waitFor(t, sent); err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
}
