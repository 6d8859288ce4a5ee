package worker

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// An answer that comes before the upload is over is read by its client, who
// sends on for a while, and has little room: never a reset instead
// (RFC 9112 section 9.6).
func TestEarlyAnswersArrive(t *testing.T) {
	const upload, tries = 20 << 20, 10
	for name, test := range map[string]struct {
		head   string
		change func(*Options)
		status int
	}{
		"413, announced": {fmt.Sprintf("Content-Length: %d\r\n\r\n", upload), func(o *Options) { o.Limits.Body = 1000 }, 413},
		"413, counted":   {"Transfer-Encoding: chunked\r\n\r\n1400000\r\n", func(o *Options) { o.Limits.Body = 1000 }, 413},
		"400":            {"Transfer-Encoding: chunked\r\n\r\nnonsense", func(*Options) {}, 400},
		"413, blocking":  {fmt.Sprintf("Content-Length: %d\r\n\r\n", upload), func(o *Options) { o.Limits.Body, o.QueueRequests = 1000, false }, 413},
		"400, blocking":  {"Transfer-Encoding: chunked\r\n\r\nnonsense", func(o *Options) { o.QueueRequests = false }, 400},
		"401, both":      {fmt.Sprintf("Content-Length: %d\r\n\r\n", upload), func(o *Options) { o.QueueRequests = false; streaming(o) }, 401},
		"401, streamed":  {fmt.Sprintf("Content-Length: %d\r\n\r\n", upload), streaming, 401},
	} {
		t.Run(name, func(t *testing.T) {
			page := strings.Repeat("answer ", 10_000) // more than the client's window
			ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(401)
				_, _ = io.WriteString(w, page)
			}, test.change)
			for range tries {
				conn := dialSmall(t, ts.addr)
				_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: h\r\n"+test.head)
				piece := make([]byte, 64<<10)
				for sent := 0; sent < upload; sent += len(piece) {
					_ = conn.SetWriteDeadline(time.Now().Add(20 * time.Millisecond)) // then it looks for an answer
					if _, err := conn.Write(piece); err != nil {
						break
					}
				}
				answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatalf("no answer: %v", err)
				}
				body, err := io.ReadAll(answer.Body)
				if answer.StatusCode != test.status || err != nil || test.status == 401 && string(body) != page {
					t.Fatalf("answer %d with %d bytes, %v", answer.StatusCode, len(body), err)
				}
				conn.Close()
			}
		})
	}
}

// dialSmall connects with a receive buffer of a few kilobytes.
func dialSmall(t *testing.T, addr string) net.Conn {
	t.Helper()
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
	}}
	conn, err := dialer.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	t.Cleanup(func() { conn.Close() })
	return conn
}
