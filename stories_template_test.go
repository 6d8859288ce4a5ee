package catamount_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/catamount-server/catamount"
	"golang.org/x/sys/unix"
)

// "write tcp ...: broken pipe" stood in a production log, at random places of a
// large template that was executed straight into the ResponseWriter; rendering
// it into a buffer first made the lines vanish, because then nobody looked at
// the error. Here such a page costs few writes, a client who leaves is told
// apart from a fault of the page, once, and the handler hears of it.

const pageRows = 6000

// rows is a page with many small pieces. It calls hook with the number of each
// row, and fails with its error.
func rows(hook func(row int) (string, error)) *template.Template {
	return template.Must(template.New("rows").Funcs(template.FuncMap{"hook": hook}).Parse(
		`<table>{{range .}}<tr><td>{{.}}</td><td class="{{if .}}some{{else}}none{{end}}">{{hook .}}</td></tr>
{{end}}</table>`))
}

func plainRow(row int) (string, error) { return "a < b & c", nil }

func rowNumbers() []int {
	numbers := make([]int, pageRows)
	for i := range numbers {
		numbers[i] = i
	}
	return numbers
}

// countingWriter counts what a template writes, one by one.
type countingWriter struct {
	bytes.Buffer
	writes int
}

func (w *countingWriter) Write(p []byte) (int, error) {
	w.writes++
	return w.Buffer.Write(p)
}

// A client that stays gets the page in few pieces, however small those are that
// the template writes.
func TestSmallWritesAreJoined(t *testing.T) {
	var page countingWriter
	if err := rows(plainRow).Execute(&page, rowNumbers()); err != nil {
		t.Fatal(err)
	}
	s := &catamount.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := rows(plainRow).Execute(w, rowNumbers()); err != nil {
			t.Error(err)
		}
	})}
	conn := dial(t, "tcp", serve(t, s))
	if _, err := io.WriteString(conn, get11); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	if line, err := readLine(r); err != nil || line != "HTTP/1.1 200 OK" {
		t.Fatalf("status line %q, %v", line, err)
	}
	if fields, err := readFields(r); err != nil || fields["transfer-encoding"] != "chunked" {
		t.Fatalf("fields %v, %v", fields, err)
	}
	body, chunks, err := readEachChunk(r)
	if err != nil || !bytes.Equal(body, page.Bytes()) {
		t.Fatalf("read %d bytes, want %d and the same: %v", len(body), page.Len(), err)
	}
	segments, err := segmentsReceived(conn.(*net.TCPConn))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes in %d writes of the template: %d chunks, the smallest but the last of %d bytes, %d segments",
		page.Len(), page.writes, len(chunks), slices.Min(chunks[:len(chunks)-1]), segments)
	if smallest := slices.Min(chunks[:len(chunks)-1]); smallest < 4096 {
		t.Errorf("there is a chunk of %d bytes", smallest)
	}
	// Each send is a segment at least, on the loopback interface and without
	// delay: so this bounds the system calls.
	if most := page.Len()/(16<<10) + 10; segments > most || page.writes < 100*segments {
		t.Errorf("%d segments, want at most %d", segments, most)
	}
}

func readEachChunk(r *bufio.Reader) (body []byte, sizes []int, err error) {
	for {
		line, err := readLine(r)
		if err != nil {
			return body, sizes, err
		}
		size, err := strconv.ParseUint(line, 16, 31)
		if err != nil {
			return body, sizes, err
		}
		chunk := make([]byte, size+2)
		if _, err := io.ReadFull(r, chunk); err != nil {
			return body, sizes, err
		}
		if size == 0 {
			return body, sizes, nil
		}
		body, sizes = append(body, chunk[:size]...), append(sizes, int(size))
	}
}

// segmentsReceived is the number of segments with data that a connection got.
func segmentsReceived(conn *net.TCPConn) (segments int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	controlErr := raw.Control(func(fd uintptr) {
		var info *unix.TCPInfo
		if info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			segments = int(info.Data_segs_in)
		}
	})
	return segments, errors.Join(err, controlErr)
}

// listenWithSmallBuffers makes a listener whose connections take little of an
// answer at a time, as they do on a network that is slower than this one.
func listenWithSmallBuffers(t *testing.T) net.Listener {
	t.Helper()
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, 64<<10) })
		return err
	}}
	config.SetMultipathTCP(false) // as ListenAndServe has it
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// A client leaves in the middle of the page. The template's error says so, and
// so does the log, once; also when the page goes through a buffer.
func TestClientLeavesInTheMiddleOfAPage(t *testing.T) {
	for name, leave := range map[string]func(*net.TCPConn){
		"closes": func(c *net.TCPConn) {},
		"resets": func(c *net.TCPConn) { _ = c.SetLinger(0) },
	} {
		for _, buffered := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, buffered %t", name, buffered), func(t *testing.T) {
				const middle = pageRows / 2
				reached, left := make(chan struct{}), make(chan struct{})
				var rendered atomic.Int64
				page := rows(func(row int) (string, error) {
					if rendered.Add(1); row == middle {
						close(reached)
						<-left
					}
					return plainRow(row)
				})
				errs := make(chan error, 1)
				logs := &logBook{}
				s := &catamount.Server{Logger: slog.New(logs), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					var err error
					if buffered {
						var whole bytes.Buffer
						_ = page.Execute(&whole, rowNumbers())
						_, err = io.Copy(w, &whole)
					} else {
						err = page.Execute(w, rowNumbers())
					}
					if r.Context().Err() != context.Canceled {
						t.Errorf("the context's error is %v", r.Context().Err())
					}
					errs <- err
				})}
				l := listenWithSmallBuffers(t)
				serveOn(t, s, l)
				conn := dial(t, "tcp", l.Addr().String()).(*net.TCPConn)
				if _, err := io.WriteString(conn, request("GET /page HTTP/1.1", "Host: h")); err != nil {
					t.Fatal(err)
				}
				waitFor(t, reached)
				leave(conn)
				conn.Close()
				until(t, "the server has seen it", func() bool { return s.Stats().Gone == 1 })
				close(left)
				err := waitFor(t, errs)
				noConnections(t, s)
				if !isGone(err) {
					t.Fatalf("the handler's error is %v", err)
				}
				if !buffered && rendered.Load() > middle+middle/2 {
					t.Errorf("%d of %d rows were rendered for nobody", rendered.Load()-middle, middle)
				}
				if stats := s.Stats(); !maps.Equal(stats.WriteErrors, map[string]uint64{causeOf(err): 1}) {
					t.Errorf("failed writes %v", stats.WriteErrors)
				}
				line := logs.only(t, s, "response not delivered", map[string]string{
					"method": "GET", "path": "/page", "status": "200", "cause": causeOf(err), "err": err.Error(),
				})
				if written, err := strconv.Atoi(line.attrs["written"]); err != nil || written == 0 && !buffered { // buffered: none was, perhaps
					t.Errorf("written: %q", line.attrs["written"])
				}
				t.Logf("%d rows after the client had left; %v", rendered.Load()-middle, line)
			})
		}
	}
}

// A fault of the page is none of the client's.
func TestFaultInTheMiddleOfAPage(t *testing.T) {
	fault := errors.New("no such row")
	errs := make(chan error, 1)
	logs := &logBook{}
	s := &catamount.Server{Logger: slog.New(logs), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := rows(func(row int) (string, error) {
			if row == pageRows/2 {
				return "", fault
			}
			return plainRow(row)
		}).Execute(w, rowNumbers())
		errs <- err
		panic(http.ErrAbortHandler) // so that the client does not take it for the whole page
	})}
	conn := dial(t, "tcp", serve(t, s))
	if _, err := io.WriteString(conn, get11); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, answer.Body); err != io.ErrUnexpectedEOF {
		t.Errorf("the client reads %d bytes of the page: %v", n, err)
	}
	if err := waitFor(t, errs); !errors.Is(err, fault) || isGone(err) {
		t.Errorf("the handler's error is %v", err)
	}
	end(t, s)
	if stats := s.Stats(); len(stats.WriteErrors) > 0 || stats.Gone > 0 || len(logs.all()) > 0 {
		t.Errorf("failed writes %v, %d gone, log %v", stats.WriteErrors, stats.Gone, logs.all())
	}
}

// Slow clients, whichever end of a request they are slow at, hold no place of
// the pool.
func TestSlowClientsHoldNoPlace(t *testing.T) {
	const slowHeads, slowReaders, ordinary = 200, 10, 500
	l := listenWithSmallBuffers(t)
	s := &catamount.Server{MaxThreads: 2, OutputMemory: 32 << 20, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/page" {
			_ = rows(plainRow).Execute(w, rowNumbers())
			return
		}
		hello(w, r)
	})}
	serveOn(t, s, l)
	heads := make([]net.Conn, slowHeads)
	for i := range heads {
		heads[i] = dial(t, "tcp", l.Addr().String())
		if _, err := io.WriteString(heads[i], "GET / HTTP/1.1\r\nHost: h\r\nX-Slow: "); err != nil {
			t.Fatal(err)
		}
	}
	for range slowReaders {
		conn := dial(t, "tcp", l.Addr().String()).(*net.TCPConn)
		_ = conn.SetReadBuffer(4096)
		if _, err := io.WriteString(conn, request("GET /page HTTP/1.1", "Host: h")); err != nil {
			t.Fatal(err)
		}
	}
	waiting := func() bool {
		stats := s.Stats()
		return stats.Connections["head"] == slowHeads && stats.Connections["writing"] == slowReaders && stats.BusyThreads == 0
	}
	poll(t, "all of them wait in the reactor", waiting)

	c, err := newPostClient(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range ordinary {
		if _, err := io.WriteString(heads[i%slowHeads], "x"); err != nil { // one more byte of a head
			t.Fatal(err)
		}
		if _, err := c.post(); err != nil {
			t.Fatalf("ordinary request %d: %v", i, err)
		}
	}
	until(t, "the slow ones wait as before", waiting)
	if stats := s.Stats(); stats.RequestsCount != slowReaders+ordinary {
		t.Errorf("%d requests begun", stats.RequestsCount)
	} else {
		t.Logf("%d slow heads and %d slow readers beside %d requests; the backlog never had more than %d", slowHeads, slowReaders, ordinary, stats.BacklogMax)
	}
	// In the end their requests are requests like any other.
	_, err = io.WriteString(heads[0], "\r\nConnection: close\r\n\r\n")
	if answer := talk(t, heads[0], ""); err != nil || !strings.HasSuffix(answer, "Hello, World!") {
		t.Errorf("a slow client gets %q, %v", answer, err)
	}
}
