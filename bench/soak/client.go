package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"time"
)

const (
	// patience is how long a client waits for an answer before it is lost. Much
	// longer than any deadline of the server and any handler: who waits so long
	// waits for ever.
	patience = 30 * time.Second
	// endPatience is how long a client waits for the end of a connection that
	// the server has to close.
	endPatience = 15 * time.Second
)

// A client is one goroutine of a group, with random choices of its own.
type client struct {
	name    string
	random  *rand.Rand
	running context.Context // ends with the traffic
	target  string
	source  net.IP // its own, so that connections that wait in TIME_WAIT exhaust no ports
	tally   *tally
	watch   *watch
	serial  int       // of requests
	began   time.Time // of what may be late now
	failed  bool      // something unexpected has happened
}

// over reports whether the traffic is to end: what has begun is finished, at
// once.
func (c *client) over() bool { return c.running.Err() != nil }

// pace waits, and reports whether the traffic goes on.
func (c *client) pace(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.running.Done():
		return false
	}
}

// between returns a random duration.
func (c *client) between(low, high time.Duration) time.Duration {
	return low + time.Duration(c.random.Int64N(int64(high-low)))
}

func (c *client) chance(percent int) bool { return c.random.IntN(100) < percent }

// size returns a random size below limit; small ones are more frequent.
func (c *client) size(limit int) int { return c.random.IntN(1 + c.random.IntN(limit)) }

// content returns a random body of n bytes.
func (c *client) content(n int) content { return content{c.random.IntN(period), n} }

// A conn is one connection to the server.
type conn struct {
	*net.TCPConn
	reader *bufio.Reader
	before []string // the last requests that were answered, for the report
}

// dial connects; a receive buffer other than 0 bounds what the kernel takes for
// a client that does not read. A failure is told.
func (c *client) dial(receiveBuffer int) (*conn, bool) {
	c.began = time.Now()
	dialer := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: c.source}, KeepAlive: -1}
	if receiveBuffer > 0 {
		dialer.Control = func(_, _ string, raw syscall.RawConn) error {
			return setBuffer(raw, syscall.SO_RCVBUF, receiveBuffer)
		}
	}
	raw, err := dialer.Dial("tcp4", c.target)
	if err != nil {
		c.unexpected("%s: connect: %v", c.name, err)
		return nil, false
	}
	tcp := raw.(*net.TCPConn)
	_ = tcp.SetDeadline(time.Now().Add(2 * patience))
	return &conn{TCPConn: tcp, reader: bufio.NewReaderSize(tcp, 32<<10)}, true
}

// unexpected tells of something that should not have happened.
func (c *client) unexpected(format string, args ...any) { c.lose(0, format, args...) }

// lost tells of n good requests that were not answered as they should.
func (c *client) lost(n int, format string, args ...any) { c.lose(n, "LOST: "+format, args...) }

// lose excuses what may have been too late because this process had stalled.
func (c *client) lose(requests int, format string, args ...any) {
	c.failed = true
	excused := c.watch.since(c.began)
	for _, arg := range args {
		if err, ok := arg.(error); ok && errors.Is(err, errWrong) {
			excused = false
		}
	}
	c.tally.note(requests, excused, fmt.Sprintf(format, args...))
}

// check tells of err when there is one, and reports whether there is none.
func (c *client) check(err error, format string, args ...any) bool {
	if err != nil {
		c.unexpected(format, args...)
	}
	return err == nil
}

// checkRefused counts a refusal, or tells of err.
func (c *client) checkRefused(err error, format string, args ...any) {
	if c.check(err, format, args...) {
		c.tally.refusedAsExpected(1)
	}
}

// remember notes an answered request: what goes wrong next may come from it.
func (c *conn) remember(what string) {
	c.before = append(c.before[max(0, len(c.before)-2):], what)
}

// vanish closes the connection: with a reset, or as the kernel sees fit.
func (c *conn) vanish(reset bool) {
	if reset {
		_ = c.SetLinger(0)
	}
	c.Close()
}

// sendPieces sends b in one write, or in random pieces with little pauses.
func (c *conn) sendPieces(b []byte, random *rand.Rand) error {
	_ = c.SetWriteDeadline(time.Now().Add(patience))
	if random.IntN(10) < 6 {
		_, err := c.Write(b)
		return err
	}
	limit := 1 << random.IntN(16)
	for pieces := 1 + random.IntN(20); pieces > 0 && len(b) > 0; pieces-- {
		n := min(1+random.IntN(limit), len(b))
		if _, err := c.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
		if random.IntN(3) == 0 {
			timer := time.NewTimer(time.Duration(random.IntN(5000)) * time.Microsecond)
			<-timer.C
		}
	}
	_, err := c.Write(b)
	return err
}

// atEnd expects that the server ends the connection without another byte and
// without a reset.
func (c *conn) atEnd() error {
	_ = c.SetReadDeadline(time.Now().Add(endPatience))
	switch b, err := c.reader.Peek(1); {
	case err == nil:
		rest, _ := c.reader.Peek(min(c.reader.Buffered(), 60))
		return fmt.Errorf("%w: behind the last answer: %q", errWrong, rest)
	case err == io.EOF:
		return nil
	default:
		return fmt.Errorf("instead of the end of file, with %d bytes: %w", len(b), err)
	}
}

// isClosed reports whether a connection ended, in whichever way: an end of file
// or a reset, but not the client's own patience.
func isClosed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
