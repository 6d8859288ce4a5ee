package catamount_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/catamount-server/catamount"
	"golang.org/x/sys/unix"
)

// An agent posts every 10 s to a server of net/http with a ReadTimeout of 10 s,
// which is the idle limit, too, when nobody sets that: the server's end and the
// agent's next request cross, the agent is told EOF. Nobody may repeat a POST
// by himself (RFC 9110 section 9.2.2), so each of them is a failed request.

// postClient is one connection whose owner posts, and writes only while he has
// seen no end of it.
type postClient struct {
	net.Conn
	*bufio.Reader
	answered time.Time
}

const post = "POST /ingest HTTP/1.1\r\nHost: h\r\nContent-Length: 7\r\n\r\nprofile"

func newPostClient(addr string) (*postClient, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	return &postClient{Conn: conn, Reader: bufio.NewReader(conn)}, nil
}

// answer reads one, and returns its Keep-Alive field.
func (c *postClient) answer() (keepAlive string, err error) {
	answer, err := http.ReadResponse(c.Reader, nil)
	if err != nil {
		return "", err
	}
	if _, err = io.Copy(io.Discard, answer.Body); err == nil && answer.StatusCode != 200 {
		err = fmt.Errorf("status %s", answer.Status)
	}
	c.answered = time.Now()
	return answer.Header.Get("Keep-Alive"), err
}

func (c *postClient) post() (keepAlive string, err error) {
	if _, err := io.WriteString(c.Conn, post); err != nil {
		return "", err
	}
	return c.answer()
}

// isOpen asks the kernel whether the server has not ended the connection yet.
// That is more than a read that finds nothing: it is true at one moment.
func (c *postClient) isOpen() (open bool) {
	raw, err := c.Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) {
		const established = 1 // TCP_ESTABLISHED of the kernel
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		open = err == nil && info.State == established
	})
	return open
}

// forEach runs f for n clients at once.
func forEach(n int, f func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { f(i) })
	}
	all.Wait()
}

// Clients that keep to the announced time lose no request, though each of them
// posts at the very end of it.
func TestPostsAtTheEndOfTheAnnouncedTime(t *testing.T) {
	t.Parallel()
	const clients, rounds = 350, 3
	s := &catamount.Server{Handler: http.HandlerFunc(hello), IdleTimeout: 6 * time.Second, AdvertisedIdle: time.Second}
	addr := serve(t, s)
	var failed atomic.Int64
	fail := func(format string, args ...any) {
		if failed.Add(1) <= 5 {
			t.Errorf(format, args...)
		}
	}
	begun := time.Now()
	forEach(clients, func(int) {
		c, err := newPostClient(addr)
		if err != nil {
			fail("connecting: %v", err)
			return
		}
		defer c.Close()
		for round := range rounds + 1 {
			keepAlive, err := c.post()
			if err != nil {
				fail("request %d, %v after the answer before: %v", round, time.Since(c.answered), err)
				return
			}
			seconds, announced := 0, false
			if _, err := fmt.Sscanf(keepAlive, "timeout=%d", &seconds); err == nil {
				announced = true
			}
			if !announced || seconds != 1 {
				fail("Keep-Alive: %q", keepAlive)
				return
			}
			if round < rounds {
				<-time.After(time.Until(c.answered.Add(time.Duration(seconds) * time.Second)))
			}
		}
	})
	stats := s.Stats()
	t.Logf("%d POSTs at the end of the announced second, %d failed; %v in all", clients*rounds, failed.Load(), time.Since(begun))
	if stats.RequestsCount != clients*(rounds+1) || stats.Accepted != clients || stats.IdleClosed != 0 {
		t.Errorf("%d requests on %d connections, %d closed", stats.RequestsCount, stats.Accepted, stats.IdleClosed)
	}
}

// poster is a client of net/http that posts again and again.
type poster struct {
	url             string
	clients, rounds int
	idle            time.Duration                         // its IdleConnTimeout; 0: none
	pause           func(round, client int) time.Duration // from an answer to the next POST
}

// run returns how many of the POSTs failed, how many used a connection again,
// and the first error.
func (p *poster) run() (failed, reused int64, first error) {
	var failures, reuses atomic.Int64
	var once sync.Once
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if info.Reused {
			reuses.Add(1)
		}
	}}
	forEach(p.clients, func(client int) {
		transport := &http.Transport{IdleConnTimeout: p.idle}
		defer transport.CloseIdleConnections()
		for round := range p.rounds {
			if err := postOnce(transport, p.url, trace); err != nil {
				failures.Add(1)
				once.Do(func() { first = err })
			}
			if round < p.rounds-1 {
				<-time.After(p.pause(round, client))
			}
		}
	})
	return failures.Load(), reuses.Load(), first
}

func postOnce(transport *http.Transport, url string, trace *httptrace.ClientTrace) error {
	r, err := http.NewRequest(http.MethodPost, url, strings.NewReader("profile"))
	if err != nil {
		return err
	}
	client := http.Client{Transport: transport, Timeout: patience}
	answer, err := client.Do(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err = io.Copy(io.Discard, answer.Body); err == nil && answer.StatusCode != 200 {
		err = fmt.Errorf("status %s", answer.Status)
	}
	return err
}

// Go's own client does not read Keep-Alive; one whose IdleConnTimeout is what
// the server announces never meets a closing connection either.
func TestTransportWithTheAnnouncedTime(t *testing.T) {
	t.Parallel()
	s := &catamount.Server{Handler: http.HandlerFunc(hello), IdleTimeout: 2 * time.Second, AdvertisedIdle: time.Second}
	p := &poster{
		url: "http://" + serve(t, s), clients: 100, rounds: 3, idle: time.Second,
		pause: func(round, client int) time.Duration { // around its own limit
			return time.Second + time.Duration(client-50)*400*time.Microsecond
		},
	}
	failed, reused, err := p.run()
	t.Logf("%d POSTs around the limit, %d on a used connection, %d failed", 200, reused, failed)
	if failed > 0 {
		t.Errorf("%d POSTs failed: %v", failed, err)
	}
	if reused == 0 {
		t.Error("no connection was used twice: this shows nothing")
	}
}

// The story itself, at a fortieth of its times: the same agents, the same
// ReadTimeout. Here it is no idle limit.
func TestPostsAtTheReadTimeout(t *testing.T) {
	t.Parallel()
	const limit = 250 * time.Millisecond
	p := &poster{clients: 100, rounds: 5, pause: func(round, client int) time.Duration {
		return limit + time.Duration(client-70)*20*time.Microsecond
	}}
	theirs := &http.Server{Handler: http.HandlerFunc(hello), ReadTimeout: limit, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- theirs.Serve(l) }()
	p.url = "http://" + l.Addr().String()
	failed, reused, err := p.run()
	theirs.Close()
	waitFor(t, ended)
	// How often the two cross is a matter of luck.
	t.Logf("net/http: %d of %d POSTs failed (%d on a used connection), such as %v", failed, p.clients*p.rounds, reused, err)

	p.url = "http://" + serve(t, &catamount.Server{
		Handler: http.HandlerFunc(hello), ReadTimeout: limit,
		FirstByteTimeout: patience, // the transport opens connections that it uses later, or never
	})
	failed, reused, err = p.run()
	t.Logf("catamount: %d failed, %d on a used connection", failed, reused)
	if failed > 0 {
		t.Errorf("%d of %d POSTs failed: %v", failed, p.clients*p.rounds, err)
	}
	if want := int64(p.clients * (p.rounds - 1)); reused != want {
		t.Errorf("%d POSTs on a used connection, want %d", reused, want)
	}
}

// fates of requests that were sent at the server's own idle limit.
type fates struct {
	answered, // got its answer
	closed, // not sent: the connection had ended before
	crossed, // lost: the end came while it was being written
	lost atomic.Int64 // lost, though it was written before the end came
}

func (f *fates) String() string {
	return fmt.Sprintf("%d answered, %d not sent, %d crossed the end, %d lost", f.answered.Load(), f.closed.Load(), f.crossed.Load(), f.lost.Load())
}

// meetTheLimit sends a request on each of many connections when the server's
// idle limit has just come, or is about to.
func meetTheLimit(t *testing.T, addr string, clients int, from, to time.Duration) *fates {
	f := new(fates)
	forEach(clients, func(i int) {
		c, err := newPostClient(addr)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		if _, err := c.post(); err != nil {
			t.Errorf("first request: %v", err)
			return
		}
		<-time.After(time.Until(c.answered.Add(from + (to-from)*time.Duration(i)/time.Duration(clients))))
		if !c.isOpen() {
			f.closed.Add(1)
			return
		}
		_, err = io.WriteString(c.Conn, post)
		// On the loopback interface the bytes are in the server's socket when the
		// write returns: if no end has come by now, the request was first.
		first := c.isOpen()
		if err == nil {
			_, err = c.answer()
		}
		switch {
		case err == nil:
			f.answered.Add(1)
		case first:
			f.lost.Add(1)
		default:
			f.crossed.Add(1)
		}
	})
	return f
}

// Clients that do not keep to anything meet the limit itself. What lies between
// the server's last look at the socket and its shutdown is a microsecond, and
// nothing in HTTP/1.1 can make it none; everything else is answered, or the
// client can see that the connection has ended.
func TestPostsAtTheIdleLimit(t *testing.T) {
	const clients, limit = 1000, 400 * time.Millisecond
	f := meetTheLimit(t, serve(t, &catamount.Server{Handler: http.HandlerFunc(hello), IdleTimeout: limit}),
		clients, limit-50*time.Millisecond, limit+100*time.Millisecond)
	t.Log("catamount:", f)
	if n := f.lost.Load(); n > clients/100 {
		t.Errorf("%d requests were written before the end of their connections and got no answer", n)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	theirs := &http.Server{Handler: http.HandlerFunc(hello), IdleTimeout: limit}
	ended := make(chan error, 1)
	go func() { ended <- theirs.Serve(l) }()
	t.Log("net/http:", meetTheLimit(t, l.Addr().String(), clients, limit-5*time.Millisecond, limit+10*time.Millisecond))
	theirs.Close()
	waitFor(t, ended)
}

// Without luck: the server's process stands still while the limit passes and,
// after that, the requests come. Its last look has to find all of them.
func TestPostsBeforeTheLastLook(t *testing.T) {
	t.Parallel()
	for _, server := range []string{"idle limit", "idle limit, blocking"} {
		t.Run(server, func(t *testing.T) {
			t.Parallel()
			c := startChild(t, server)
			_, port, err := net.SplitHostPort(c.tell("").Addr)
			if err != nil {
				t.Fatal(err)
			}
			clients := make([]*postClient, 100)
			for i := range clients {
				if clients[i], err = newPostClient(net.JoinHostPort("127.0.0.1", port)); err != nil {
					t.Fatal(err)
				}
				defer clients[i].Close()
				if _, err := clients[i].post(); err != nil {
					t.Fatal(err)
				}
			}
			c.stop()
			<-time.After(time.Until(clients[len(clients)-1].answered.Add(childIdle * 3 / 2)))
			for _, client := range clients {
				if !client.isOpen() {
					t.Error("closed before the limit")
				}
				if _, err := io.WriteString(client.Conn, post); err != nil {
					t.Error(err)
				}
			}
			c.goOn()
			lost := 0
			for _, client := range clients {
				if _, err := client.answer(); err != nil {
					if lost++; lost == 1 {
						t.Errorf("no answer: %v", err)
					}
				}
			}
			t.Logf("%d of %d requests lost, closed as idle: %d", lost, len(clients), c.tell("").Stats.IdleClosed)
		})
	}
}

// stop makes the process stand still, all of it; goOn ends that.
func (c *child) stop() {
	c.t.Helper()
	if err := c.Process.Signal(syscall.SIGSTOP); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(c.goOn)
	poll(c.t, "every thread of the child stands still", func() bool {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", c.Process.Pid))
		for _, thread := range threads {
			stat, _ := os.ReadFile(thread)
			if _, state, _ := strings.Cut(string(stat), ") "); !strings.HasPrefix(state, "T") {
				return false
			}
		}
		return len(threads) > 0
	})
}

func (c *child) goOn() { _ = c.Process.Signal(syscall.SIGCONT) }
