package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// lateness is how much later than its deadline the server may be seen to act:
// deadlines have ticks, and the machine has other things to do.
const lateness = 5 * time.Second

// beTrickling sends a request a few bytes at a time: fast enough, or so slowly
// that it has to be refused.
func beTrickling(c *client) {
	conn, ok := c.dial(0)
	if !ok {
		return
	}
	defer conn.Close()
	switch c.random.IntN(5) {
	case 0:
		r := c.get("/hello", want{text: helloText})
		c.trickle(conn, r, c.between(0, headTimeout*6/10))
	case 1:
		body := c.content(20 + c.random.IntN(2000))
		r := c.echo(body)
		if c.chance(40) {
			r = c.live(body)
		}
		c.trickle(conn, r, c.between(0, headTimeout*6/10))
	case 2: // a head that does not end
		c.trickleForEver(conn, "GET /hello HTTP/1.1\r\nHost: soak.test\r\nX-Trickle: ", headTimeout, http.StatusRequestTimeout)
	case 3: // a body that comes too slowly
		path, status := c.refusingPath()
		c.trickleForEver(conn, uploadHead(path, 1<<20, c.name), bodyGrace, status)
	default: // a body that stops
		c.stopInBody(conn)
	}
}

// trickle sends r within the given time. It has to be answered.
func (c *client) trickle(conn *conn, r request, within time.Duration) {
	pieces := 2 + c.random.IntN(min(len(r.raw)-1, 40))
	began := time.Now()
	for i := range pieces {
		from, to := len(r.raw)*i/pieces, len(r.raw)*(i+1)/pieces
		if _, err := conn.Write(r.raw[from:to]); err != nil {
			break // reading tells why
		}
		if i < pieces-1 {
			c.pace(within / time.Duration(pieces))
		}
	}
	took := time.Since(began)
	_, err := conn.readAnswer(&r.want)
	switch {
	case err == nil:
		c.tally.answered(0)
	case took > headTimeout*9/10:
		c.tally.unfinished() // the machine was too slow for a promise
	default:
		c.lost(1, "%s: sent in %d pieces within %v: %v", r.what, pieces, took.Round(time.Millisecond), err)
	}
}

// trickleForEver begins with head and then sends a byte at a time. It has to be
// refused once the deadline has passed.
func (c *client) trickleForEver(conn *conn, head string, deadline time.Duration, status int) {
	began := time.Now()
	c.began = began
	refused := make(chan error, 1)
	go func() { refused <- c.expectTimeout(conn, began, deadline, status) }()
	_, err := io.WriteString(conn, head)
	for err == nil {
		select {
		case err := <-refused:
			c.checkRefused(err, "%.30q..., a byte at a time: %v", head, err)
			return
		default:
		}
		if !c.pace(c.between(10*time.Millisecond, 300*time.Millisecond)) {
			break
		}
		_, err = conn.Write([]byte("a"))
	}
	if c.over() {
		conn.Close()
		<-refused
		c.tally.unfinished()
		return
	}
	err = <-refused
	c.checkRefused(err, "%.30q..., a byte at a time: %v", head, err)
}

// stopInBody sends a part of a body and no more.
func (c *client) stopInBody(conn *conn) {
	body := c.content(2 + c.random.IntN(400<<10))
	sent := c.random.IntN(body.size - 1)
	path, status := c.refusingPath()
	if _, err := io.WriteString(conn, uploadHead(path, body.size, c.name)); err == nil {
		part := content{body.start, sent}
		_ = part.writeTo(conn, period)
	}
	began := time.Now()
	stop := closeAtEnd(c, conn)
	err := c.expectTimeout(conn, began, bodyIdleTimeout, status)
	if stop() {
		c.tally.unfinished()
		return
	}
	c.checkRefused(err, "a body that stops after %d of %d bytes: %v", sent, body.size, err)
}

// closeAtEnd closes conn when the traffic ends; stop reports whether it did.
func closeAtEnd(c *client, conn *conn) (stop func() bool) {
	done, finished := make(chan struct{}), make(chan bool, 1)
	go func() {
		select {
		case <-c.running.Done():
			conn.Close()
			finished <- true
		case <-done:
			finished <- false
		}
	}()
	return func() bool {
		close(done)
		return <-finished
	}
}

// refusingPath is where a body that is late is sent to, and the status that it
// gets: from the server, or from the handler that reads the body as it comes.
func (c *client) refusingPath() (path string, status int) {
	if path = c.uploadPath(); path == "/upload" {
		return path, http.StatusRequestTimeout
	}
	return path, http.StatusInternalServerError
}

// expectTimeout expects a refusal, not before the deadline and not long after
// it, and then the end of the connection.
func (c *client) expectTimeout(conn *conn, began time.Time, deadline time.Duration, want int) error {
	status, err := conn.readRefusal()
	took := time.Since(began)
	switch {
	case err != nil:
		return fmt.Errorf("after %v: %w", took.Round(time.Millisecond), err)
	case status != want:
		return fmt.Errorf("status %d, want %d", status, want)
	case took < deadline*9/10 || took > deadline+lateness:
		return fmt.Errorf("status %d after %v, the deadline is %v", status, took.Round(time.Millisecond), deadline)
	}
	return nil
}

// readRefusal reads an answer of the server's own, and the end of the
// connection behind it.
func (c *conn) readRefusal() (status int, err error) {
	response, err := c.readHead(http.MethodGet)
	if err != nil {
		return 0, err
	}
	if _, err = io.Copy(io.Discard, response.Body); err != nil {
		return response.StatusCode, cut(err)
	}
	if !response.Close && response.StatusCode >= http.StatusBadRequest {
		return response.StatusCode, fmt.Errorf("status %d without Connection: close", response.StatusCode)
	}
	if err := c.atEnd(); err != nil {
		return response.StatusCode, fmt.Errorf("after status %d: %w", response.StatusCode, err)
	}
	return response.StatusCode, nil
}

// beSlowReading reads a large answer at about 50 KB/s, and checks it.
func beSlowReading(c *client) {
	conn, ok := c.dial(16<<10 + c.random.IntN(48<<10))
	if !ok {
		return
	}
	defer conn.Close()
	body := c.content(1<<20 + c.random.IntN(3<<20))
	r := c.get(c.bigTarget(body), want{body: &body})
	_ = conn.SetDeadline(time.Time{})
	if _, err := conn.Write(r.raw); err != nil {
		c.lost(1, "%s: sending: %v", r.what, err)
		return
	}
	began := time.Now()
	response, err := conn.readHead(http.MethodGet)
	check := &checker{want: body}
	for err == nil {
		if c.over() { // at full speed from here on
			_ = conn.SetReadBuffer(4 << 20)
			_, err = io.Copy(check, response.Body)
			break
		}
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if _, err = io.CopyN(check, response.Body, 5000); err == nil {
			c.pace(100 * time.Millisecond)
		}
	}
	if err == nil || err == io.EOF {
		err = check.whole()
	}
	if err != nil {
		c.lost(1, "%s: read slowly, %d of %d bytes in %v: %v", r.what, check.offset, body.size, time.Since(began).Round(time.Millisecond), err)
		return
	}
	c.tally.answered(time.Since(began))
}

// beStalling asks for more than all buffers hold and reads nothing of it, until
// the server must have given up. So it finds the beginning of the answer only.
func beStalling(c *client) {
	conn, ok := c.dial(4 << 10)
	if !ok {
		return
	}
	defer conn.Close()
	body := c.content(16 << 20)
	r := c.get(c.bigTarget(body), want{body: &body})
	if _, err := conn.Write(r.raw); err != nil {
		c.lost(1, "%s: sending: %v", r.what, err)
		return
	}
	if !c.pace(writeGrace + lateness) {
		c.tally.unfinished()
		return
	}
	_ = conn.SetReadBuffer(4 << 20)
	switch _, err := conn.readAnswer(&r.want); {
	case err == nil:
		c.unexpected("%s: the server still had the answer after %v without reading", r.what, writeGrace+lateness)
	case errors.Is(err, errCut), errors.Is(err, errBeforeAnswer):
		c.tally.refusedAsExpected(1)
	default:
		c.unexpected("%s: nothing was read for %v: %v", r.what, writeGrace+lateness, err)
	}
}

// beIdle waits until the server closes a connection without a request, or after
// one. The end has to come in time, and as an end of file.
func beIdle(c *client) {
	// The server counts from somewhere between asked and began, and this process
	// may have had no processor there.
	asked := time.Now()
	conn, ok := c.dial(0)
	if !ok {
		return
	}
	defer conn.Close()
	deadline := firstByteTimeout
	if c.chance(60) {
		deadline = idleTimeout
		r := c.get("/hello", want{text: helloText, fields: map[string]string{
			"Keep-Alive": fmt.Sprintf("timeout=%d", int(idleTimeout*4/5/time.Second))}})
		if c.exchange(conn, []request{r}, false) {
			return
		}
	}
	began := time.Now()
	c.began = asked
	stop := closeAtEnd(c, conn)
	err := conn.atEnd()
	atLeast, atMost := time.Since(began), time.Since(asked)
	if stop() {
		c.tally.unfinished()
		return
	}
	if err == nil && (atMost < deadline-500*time.Millisecond || atLeast > deadline+lateness) {
		err = fmt.Errorf("end of file after %v to %v, the deadline is %v", atLeast.Round(time.Millisecond), atMost.Round(time.Millisecond), deadline)
	}
	c.checkRefused(err, "idle: %v", err)
}

// beCrossing sends a request at the very moment at which the server closes the
// idle connection. It is served whole or not at all.
func beCrossing(c *client) {
	conn, ok := c.dial(0)
	if !ok {
		return
	}
	defer conn.Close()
	first, second := c.get("/hello", want{text: helloText}), c.echo(c.content(c.size(4000)))
	if c.exchange(conn, []request{first}, false) {
		return
	}
	if !c.pace(c.between(idleTimeout-50*time.Millisecond, idleTimeout+400*time.Millisecond)) {
		c.tally.unfinished()
		return
	}
	_, err := conn.Write(second.raw)
	if err == nil {
		_, err = conn.readAnswer(&second.want)
	}
	switch {
	case err == nil:
		c.tally.answered(0)
	case isClosed(err) && !errors.Is(err, errCut):
		c.tally.refusedAsExpected(1)
	default:
		c.unexpected("%s: sent when the idle time was over: %v", second.what, err)
	}
}
