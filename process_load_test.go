package catamount_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load is clients that never retry: each request that is not answered is a
// failure.
type load struct {
	addr     string
	ended    chan struct{}
	clients  sync.WaitGroup
	requests atomic.Int64
	// reconnects are connections that a keep-alive client had to make anew, the
	// server having announced the end of the last one.
	reconnects atomic.Int64
	worst      atomic.Int64 // nanoseconds

	mu       sync.Mutex
	failures []error
}

// startLoad starts clients that keep their connection alive and POST, and some
// that make a connection per request. The test ends them.
func startLoad(t *testing.T, addr string, keepAlive, single int) *load {
	l := &load{addr: addr, ended: make(chan struct{})}
	for range keepAlive {
		l.clients.Go(l.keepAliveClient)
	}
	for range single {
		l.clients.Go(l.singleClient)
	}
	t.Cleanup(func() { l.end() })
	poll(t, "the load is on", func() bool { return l.requests.Load() > int64(keepAlive+single) })
	return l
}

// end ends the clients and returns what went wrong.
func (l *load) end() []error {
	select {
	case <-l.ended:
	default:
		close(l.ended)
	}
	l.clients.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failures
}

// wantNoFailure ends the load and complains about every request that was lost.
func (l *load) wantNoFailure(t *testing.T, worst time.Duration) {
	t.Helper()
	failures := l.end()
	t.Logf("%d requests, %d lost, %d reconnects, the worst took %v",
		l.requests.Load(), len(failures), l.reconnects.Load(), time.Duration(l.worst.Load()))
	for i, err := range failures {
		if i == 5 {
			break
		}
		t.Errorf("lost: %v", err)
	}
	if took := time.Duration(l.worst.Load()); took > worst {
		t.Errorf("a request took %v, want at most %v", took, worst)
	}
}

func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures = append(l.failures, err)
}

// pause lets some time pass between two requests, so that connections are idle
// at some moments; false when the load is to end.
func (l *load) pause() bool {
	timer := time.NewTimer(time.Duration(rand.IntN(4000)) * time.Microsecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.ended:
		return false
	}
}

func (l *load) keepAliveClient() {
	var conn net.Conn
	var reader *bufio.Reader
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	served := 0
	for l.pause() {
		if conn == nil {
			var err error
			if conn, err = net.Dial("tcp", l.addr); err != nil {
				l.fail(err)
				continue
			}
			reader, served = bufio.NewReader(conn), 0
		}
		last, err := l.exchange(conn, reader, "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello", "hello")
		if err != nil {
			l.fail(fmt.Errorf("request %d of a connection kept alive, from %v: %w", served, conn.LocalAddr(), err))
		}
		served++
		if err != nil || last {
			if err == nil {
				l.reconnects.Add(1)
			}
			conn.Close()
			conn = nil
		}
	}
}

func (l *load) singleClient() {
	for l.pause() {
		conn, err := net.Dial("tcp", l.addr)
		if err != nil {
			l.fail(err)
			continue
		}
		if _, err := l.exchange(conn, bufio.NewReader(conn), "GET /whoami HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n", ""); err != nil {
			l.fail(fmt.Errorf("request of a connection of its own: %w", err))
		}
		conn.Close()
	}
}

// exchange sends a request and reads its answer; last: the server has said that
// it is the connection's last.
func (l *load) exchange(conn net.Conn, reader *bufio.Reader, request, want string) (last bool, err error) {
	began := time.Now()
	_ = conn.SetDeadline(began.Add(patience))
	if _, err := io.WriteString(conn, request); err != nil {
		return false, err
	}
	answer, err := http.ReadResponse(reader, nil)
	if err != nil {
		return false, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return false, err
	}
	l.requests.Add(1)
	for took := int64(time.Since(began)); ; {
		worst := l.worst.Load()
		if took <= worst || l.worst.CompareAndSwap(worst, took) {
			break
		}
	}
	if answer.StatusCode != http.StatusOK {
		return false, errors.New(answer.Status)
	}
	if want != "" && string(body) != want {
		return false, fmt.Errorf("answer %q, want %q", body, want)
	}
	return answer.Close, nil
}
