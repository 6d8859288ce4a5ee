package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"
)

// batchBytes bounds what is sent in a row. After an announced close the server
// reads and discards a megabyte; a client that had sent more could be reset
// before it has read the last answer.
const batchBytes = 900 << 10

// beGood opens a connection and sends batches of requests, each batch in a row
// without waiting for answers, with pauses that the announced idle time allows.
func beGood(c *client) {
	conn, ok := c.dial(0)
	if !ok {
		return
	}
	defer conn.Close()
	for batches := 1 + c.random.IntN(20); batches > 0; batches-- {
		batch := c.batch(1 + c.size(16))
		last := batches == 1 || c.over()
		if last && c.chance(50) {
			batch[len(batch)-1] = c.asLast(batch[len(batch)-1])
		}
		if closed := c.exchange(conn, batch, false); closed {
			return
		}
		if last {
			break
		}
		c.pace(c.pauseWithinIdle())
	}
	c.leave(conn)
}

// pauseWithinIdle is mostly short; sometimes nearly what the server announces.
func (c *client) pauseWithinIdle() time.Duration {
	if c.chance(3) {
		return c.between(0, idleTimeout*4/5-time.Second)
	}
	return c.between(0, 40*time.Millisecond)
}

// leave ends a connection after the last answer, in one of the ways in which
// clients do.
func (c *client) leave(conn *conn) {
	switch c.random.IntN(4) {
	case 0:
		conn.vanish(true)
	case 1:
	default:
		if err := conn.CloseWrite(); err == nil {
			err = conn.atEnd()
			c.check(err, "%s: after a shutdown of its side: %v", c.name, err)
		}
	}
}

// batch makes n requests, or fewer when their bodies are large.
func (c *client) batch(n int) []request {
	batch := make([]request, 0, n)
	for left := batchBytes; n > 0 && left > 0; n-- {
		r := c.request(left)
		left -= len(r.raw)
		batch = append(batch, r)
	}
	return batch
}

// exchange sends a batch and checks the answers, which come while it is sent.
// It reports whether that was the end of the connection.
func (c *client) exchange(conn *conn, batch []request, halfClose bool) (closed bool) {
	raws := make([][]byte, len(batch))
	for i := range batch {
		raws[i] = batch[i].raw
	}
	bytes, random := bytes.Join(raws, nil), rand.New(rand.NewPCG(c.random.Uint64(), 0))
	_ = conn.SetDeadline(time.Now().Add(2 * patience))
	began := time.Now()
	c.began = began
	sent := make(chan error, 1)
	go func() {
		err := conn.sendPieces(bytes, random)
		if err == nil && halfClose {
			err = conn.CloseWrite()
		}
		sent <- err
	}()
	for i := range batch {
		closing, err := conn.readAnswer(&batch[i].want)
		if err != nil {
			conn.Close() // so that sending ends
			c.lost(len(batch)-i, "%s: answer %d of %d, %v after the first byte: %v (sending: %v; served before: %q; behind it: %q)",
				batch[i].what, i+1, len(batch), time.Since(began).Round(time.Millisecond), err, <-sent, conn.before, names(batch[i+1:]))
			return true
		}
		c.tally.answered(time.Since(began))
		conn.remember(batch[i].what)
		if !closing {
			continue
		}
		// The server may announce that this was the last one. What was sent
		// behind it is not served, and the client knows.
		c.tally.refusedAsExpected(len(batch) - 1 - i)
		err = conn.atEnd()
		conn.Close()
		<-sent
		c.check(err, "%s: after an announced close: %v", batch[i].what, err)
		return true
	}
	if err := <-sent; err != nil {
		c.unexpected("%s: all answers came, but sending failed: %v", c.name, err)
		return true
	}
	if batch[len(batch)-1].last || halfClose {
		err := conn.atEnd()
		c.check(err, "%s: after the last request: %v", c.name, err)
		return true
	}
	return false
}

// names are those of the first few requests.
func names(batch []request) (list []string) {
	for _, r := range batch[:min(len(batch), 3)] {
		list = append(list, fmt.Sprintf("%s, %d bytes", r.what, len(r.raw)))
	}
	return list
}

// beHalfClosing shuts its side down behind the last request, and reads all
// answers: large ones, so that the server is still writing when it hears of it.
func beHalfClosing(c *client) {
	conn, ok := c.dial(0)
	if !ok {
		return
	}
	defer conn.Close()
	var batch []request
	for range 1 + c.random.IntN(4) {
		switch c.random.IntN(4) {
		case 0:
			batch = append(batch, c.echo(c.content(c.size(maxBody/2))))
		case 1:
			batch = append(batch, c.get(fmt.Sprintf("/slow?ms=%d", c.random.IntN(100)), want{text: helloText}))
		default:
			body := c.content(c.size(2 << 20))
			batch = append(batch, c.get(c.bigTarget(body), want{body: &body}))
		}
	}
	c.exchange(conn, batch, true)
	c.pace(c.between(0, 200*time.Millisecond))
}

// beUploading sends bodies that go to a file, and checks the hash.
func beUploading(c *client) {
	conn, ok := c.dial(0)
	if !ok {
		return
	}
	defer conn.Close()
	for range 1 + c.random.IntN(4) {
		if !c.upload(conn) || !c.pace(c.between(50*time.Millisecond, time.Second)) {
			break
		}
	}
	c.leave(conn)
}

func (c *client) upload(conn *conn) bool {
	c.serial++
	id := fmt.Sprintf("%s-%d", c.name, c.serial)
	body := c.content(1<<20 + c.random.IntN(19<<20))
	path := c.uploadPath()
	began, hash, piece := time.Now(), sha256.New(), 4096+c.random.IntN(period-4096)
	c.began = began
	_ = conn.SetDeadline(began.Add(2 * patience))
	var err error
	if c.chance(50) {
		if _, err = io.WriteString(conn, uploadHead(path, body.size, id)); err == nil {
			err = body.writeTo(io.MultiWriter(conn, hash), piece)
		}
	} else {
		if _, err = io.WriteString(conn, uploadHead(path, -1, id)); err == nil {
			err = body.writeTo(io.MultiWriter(chunkWriter{conn}, hash), piece)
		}
		if err == nil {
			_, err = io.WriteString(conn, "0\r\n\r\n")
		}
	}
	if err == nil {
		var closing bool
		closing, err = conn.readAnswer(&want{
			method: http.MethodPost, status: http.StatusOK, fields: map[string]string{idField: id},
			text: fmt.Sprintf("%d %x", body.size, hash.Sum(nil)),
		})
		if err == nil && closing {
			err = errors.New("the server announced to close")
		}
	}
	if err != nil {
		c.lost(1, "%s: upload of %d bytes to %s, after %v: %v", id, body.size, path, time.Since(began).Round(time.Millisecond), err)
		return false
	}
	c.tally.answered(time.Since(began))
	return true
}
