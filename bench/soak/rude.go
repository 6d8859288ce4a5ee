package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// beVanishing leaves without a word at some point of a request: by closing or
// with a reset. Nothing is expected for it but that the server gets over it.
func beVanishing(c *client) {
	conn, ok := c.dial(0)
	if !ok {
		return
	}
	reset := c.chance(50)
	defer func() { conn.vanish(reset) }()
	var err error
	switch c.random.IntN(7) {
	case 0: // in the head, or before it
		raw := c.request(1000).raw
		_, err = conn.Write(raw[:c.random.IntN(min(len(raw), 60))])
	case 1: // in the body
		body := c.content(1 + c.random.IntN(2<<20))
		if _, err = io.WriteString(conn, uploadHead(c.uploadPath(), body.size, c.name)); err == nil {
			err = content{body.start, c.random.IntN(body.size)}.writeTo(conn, period)
		}
	case 2: // while the handler runs, which may notice
		target := fmt.Sprintf("/slow?ms=%d", 50+c.random.IntN(200))
		if c.chance(70) {
			target += "&watch=1"
		}
		_, err = conn.Write(c.get(target, want{}).raw)
		c.pace(c.between(0, 60*time.Millisecond))
	case 3: // in the middle of a large answer
		err = c.readPart(conn, 1<<20+c.random.IntN(8<<20))
	case 4: // after having stalled in it
		err = c.readPart(conn, 1<<20+c.random.IntN(8<<20))
		c.pace(c.between(0, 2*time.Second))
	case 5: // with many requests on the way, without reading an answer
		for _, r := range c.batch(1 + c.random.IntN(30)) {
			_ = conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
			if _, err = conn.Write(r.raw); err != nil {
				break
			}
		}
		err = nil // the server need not read on while nobody reads its answers
	default: // between two requests
		err = c.readPart(conn, 0)
	}
	if c.check(err, "before vanishing: %v", err) {
		c.tally.answered(0)
	}
	c.pace(c.between(0, 100*time.Millisecond))
}

// readPart asks for n bytes and reads a random part of them.
func (c *client) readPart(conn *conn, n int) error {
	body := c.content(n)
	r := c.get(c.bigTarget(body), want{body: &body})
	if _, err := conn.Write(r.raw); err != nil {
		return err
	}
	response, err := conn.readHead(r.want.method)
	if err != nil || n == 0 {
		return err
	}
	_, err = io.CopyN(&checker{want: body}, response.Body, int64(c.random.IntN(n)))
	return err
}

// bePanicking calls handlers that fail. Requests before that are answered; the
// answer of the failing one must not look complete.
func bePanicking(c *client) {
	conn, ok := c.dial(0)
	if !ok {
		return
	}
	defer conn.Close()
	var raw []byte
	before := make([]request, c.random.IntN(4))
	for i := range before {
		before[i] = c.get("/hello", want{text: helloText})
		raw = append(raw, before[i].raw...)
	}
	how := []string{"panic", "abort", "exit", "short"}[c.random.IntN(4)]
	body := c.content(c.random.IntN(2) * c.size(100<<10))
	failing := c.get(fmt.Sprintf("/panic?how=%s&n=%d&start=%d", how, body.size, body.start), want{body: &body})
	raw = append(raw, failing.raw...)
	if c.chance(30) {
		raw = append(raw, c.get("/hello", want{}).raw...) // is not served any more
	}
	_, err := conn.Write(raw)
	for i := range before {
		if err == nil {
			if _, err = conn.readAnswer(&before[i].want); err != nil {
				err = fmt.Errorf("good request %d of %d before it: %w", i+1, len(before), err)
			}
		}
	}
	if err == nil {
		err = c.expectCut(conn, &failing)
	}
	c.checkRefused(err, "handler that fails by %q after %d bytes: %v", how, body.size, err)
	c.pace(c.between(0, 200*time.Millisecond))
}

func (c *client) expectCut(conn *conn, r *request) error {
	response, err := conn.readHead(http.MethodGet)
	if errors.Is(err, errBeforeAnswer) {
		return nil
	}
	if err != nil {
		return err
	}
	check := &checker{want: *r.want.body}
	_, err = io.Copy(check, response.Body)
	if err == nil {
		return fmt.Errorf("an answer with status %d that looks complete", response.StatusCode)
	}
	if isClosed(err) {
		return nil
	}
	return err
}
