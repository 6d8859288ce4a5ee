package server

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/catamount-server/catamount/bench/internal/measure"
	"github.com/catamount-server/catamount/bench/internal/process"
)

// Running is a started server.
type Running struct {
	Addr  string
	PID   int // of the process that all of the server's others descend from
	child *process.Child
}

// Start starts a server pinned to its processor, and returns when it listens.
func Start(spec Spec) (*Running, error) {
	child, err := process.StartRole(process.ServerSide, RoleName, spec.Server, spec)
	if err != nil {
		return nil, err
	}
	var g greeting
	if err := child.Receive(&g); err != nil {
		child.Stop()
		return nil, err
	}
	return &Running{Addr: g.Addr, PID: g.PID, child: child}, nil
}

// Stop ends the server and waits for it.
func (r *Running) Stop() error { return r.child.Stop() }

// Look returns what the server tells about itself.
func (r *Running) Look() (Inside, error) {
	var i Inside
	err := r.child.Ask(wordLook, &i)
	return i, err
}

// Collect has the server collect its garbage, where it is Go, and returns what
// it holds then.
func (r *Running) Collect() (i Inside, m measure.Memory, err error) {
	if err := r.child.Ask(wordCollect, &i); err != nil {
		return i, m, err
	}
	m, err = measure.MemoryOf(r.PID)
	return i, m, err
}

// Release lets parked handlers go on.
func (r *Running) Release() error {
	var i Inside
	return r.child.Ask(wordRelease, &i)
}

// Usage returns the CPU time of all processes of the server.
func (r *Running) Usage() (measure.Usage, error) { return measure.UsageOf(r.PID) }

// Memory returns the memory of all processes of the server.
func (r *Running) Memory() (measure.Memory, error) { return measure.MemoryOf(r.PID) }

// Answer is what a server said to one request.
type Answer struct {
	Size        int // bytes on the wire
	Status      int
	ContentType string
	Body        []byte
}

// Exchange sends a request, given as it goes over the wire, over a connection
// of its own.
func (r *Running) Exchange(request []byte, method string) (a Answer, err error) {
	conn, err := net.Dial("tcp4", r.Addr)
	if err != nil {
		return a, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Write(request); err != nil {
		return a, err
	}
	counted := &countingReader{Reader: conn}
	resp, err := http.ReadResponse(bufio.NewReader(counted), &http.Request{Method: method})
	if err != nil {
		return a, fmt.Errorf("answer: %w", err)
	}
	a.Status, a.ContentType = resp.StatusCode, resp.Header.Get("Content-Type")
	if a.Body, err = io.ReadAll(resp.Body); err != nil {
		return a, fmt.Errorf("answer: %w", err)
	}
	a.Size = counted.n
	return a, nil
}

type countingReader struct {
	io.Reader
	n int
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += n
	return n, err
}

// Check refuses an answer that is not the app's to a request for path, whose
// body had size bytes.
func (a Answer) Check(app, path string, size int) error {
	body, kind := helloBody, plainText
	switch app {
	case JSON:
		body, kind = string(encodeRecords()), jsonType
	case Upload:
		body = fmt.Sprint(size)
	case Download:
		body, kind = string(pattern(DownloadSize)), binaryType
	case Big:
		if path == BigPath {
			body, kind = string(pattern(BigSize)), binaryType
		}
	case File:
		body, kind = string(pattern(FileSize)), binaryType
	}
	switch {
	case a.Status != http.StatusOK:
		return fmt.Errorf("status %d, not 200", a.Status)
	case a.ContentType != kind:
		return fmt.Errorf("Content-Type %q, not %q", a.ContentType, kind)
	case string(a.Body) != body:
		return fmt.Errorf("a body of %d bytes that is not the app's %d: it starts with %.40q", len(a.Body), len(body), a.Body)
	}
	return nil
}
