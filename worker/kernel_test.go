package worker

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/catamount-server/catamount/reactor"
	"github.com/catamount-server/catamount/reactor/reactortest"
	"golang.org/x/sys/unix"
)

// fakeKernel is a poller and sockets without a kernel, for tests in virtual
// time: it says exactly what the server sees in one read, and knows when the
// server did what.
type fakeKernel struct {
	*Server
	t        *testing.T
	poller   *reactortest.Poller
	logs     *logRecorder
	listener *listener

	mu      sync.Mutex
	sockets map[int]*fakeSocket
}

// fakeSocket is one connection; its methods are what the client does.
type fakeSocket struct {
	kernel *fakeKernel
	fd     int

	// Guarded by the kernel's mutex.
	in       []byte // sent by the client, not read by the server
	eof      bool   // the client has shut down its side
	err      error  // what reads and writes fail with
	room     int    // bytes that the server may still send; -1: any number
	out      []byte // sent by the server
	buffered int64  // of out, not taken by the client
	writes   int    // successful sends of the server
	// When the server did something for the first time; zero: it has not.
	answeredAt, shutAt, closedAt time.Time
	resets                       bool // close will be a reset, whatever there is
	reset                        bool // closed by one: with bytes unread, or so that it would be
}

// inBubble runs a test in virtual time against a server without a kernel.
func inBubble(t *testing.T, handler http.HandlerFunc, change func(*Options), test func(t *testing.T, k *fakeKernel)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{t: t, poller: reactortest.NewPoller(), logs: newLogRecorder(), sockets: make(map[int]*fakeSocket)}
		options := testOptions()
		options.Handler = handler
		options.Logger = slog.New(k.logs)
		options.poller = k.poller
		options.sockets = &sockets{receive: k.receive, send: k.send, sendFile: k.sendFile, unread: k.unread, unsent: k.unsent, setNotSent: func(int, int) {}, shutdownWrite: k.shutdownWrite, shutdown: k.shutdown, resetOnClose: k.resetOnClose, close: k.close}
		if change != nil {
			change(&options)
		}
		s, err := NewServer(options)
		if err != nil {
			t.Fatal(err)
		}
		k.Server = s
		k.listener = &listener{base: context.Background()}
		s.gate.table.Store(&[]*listener{k.listener})
		defer k.stop()
		test(t, k)
	})
}

// stop ends the server.
func (k *fakeKernel) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	if err := k.Close(); err != nil {
		k.t.Errorf("Close: %v", err)
	}
	if err := k.Shutdown(ctx); err != nil {
		k.t.Errorf("the server does not end: %v", err)
	}
	if n := k.blocks.used.Load(); n != 0 {
		k.t.Errorf("bodies still hold %d bytes in blocks", n)
	}
}

// pass lets time pass, in which whatever is due happens.
func (k *fakeKernel) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// connect makes a new connection.
func (k *fakeKernel) connect() *fakeSocket {
	k.t.Helper()
	k.mu.Lock()
	c := &fakeSocket{kernel: k, fd: 100 + len(k.sockets), room: -1}
	k.sockets[c.fd] = c
	k.mu.Unlock()
	peer := address{family: 4, ip: [16]byte{192, 0, 2, byte(c.fd)}, port: 4711}
	if err := k.reactor.Do(func() { k.adopt(k.listener, c.fd, peer, nil) }); err != nil {
		k.t.Fatal(err)
	}
	synctest.Wait()
	return c
}

// send delivers bytes in one piece, and waits until the server has done all it
// can with them.
func (c *fakeSocket) send(bytes string) {
	c.put(bytes, false)
	c.event(reactor.Readable | reactor.Writable)
	synctest.Wait()
}

// sendAndFinish delivers bytes together with the end of file.
func (c *fakeSocket) sendAndFinish(bytes string) {
	c.put(bytes, true)
	c.event(reactor.Readable | reactor.Writable | reactor.PeerClosed)
	synctest.Wait()
}

// put places bytes in the socket's buffer without telling anyone.
func (c *fakeSocket) put(bytes string, eof bool) {
	c.kernel.mu.Lock()
	defer c.kernel.mu.Unlock()
	c.in = append(c.in, bytes...)
	c.eof = c.eof || eof
}

// fail makes the connection fail, as a reset does.
func (c *fakeSocket) fail(err error) {
	c.kernel.mu.Lock()
	c.err = err
	c.kernel.mu.Unlock()
	c.event(reactor.Readable | reactor.Writable | reactor.PeerClosed | reactor.HungUp)
	synctest.Wait()
}

// setRoom says how many bytes the server may send from now on.
func (c *fakeSocket) setRoom(n int) {
	c.kernel.mu.Lock()
	c.room = n
	c.kernel.mu.Unlock()
}

// take makes room for n more bytes, and says so.
func (c *fakeSocket) take(n int) {
	c.setRoom(n)
	c.event(reactor.Writable)
	synctest.Wait()
}

// event is not delivered once the server has closed the descriptor.
func (c *fakeSocket) event(events reactor.Events) { _ = c.kernel.poller.Event(c.fd, events) }

// state returns a copy of what is known of the connection.
func (c *fakeSocket) state() fakeSocket {
	c.kernel.mu.Lock()
	defer c.kernel.mu.Unlock()
	return *c
}

// received returns what the server has sent since the last call.
func (c *fakeSocket) received() string {
	c.kernel.mu.Lock()
	defer c.kernel.mu.Unlock()
	s := string(c.out)
	c.out = nil
	return s
}

func (k *fakeKernel) receive(fd int, p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.sockets[fd]
	switch {
	case !c.closedAt.IsZero():
		return 0, unix.EBADF
	case len(c.in) > 0:
		n := copy(p, c.in)
		c.in = c.in[n:]
		return n, nil
	case c.err != nil:
		return 0, c.err
	case c.eof:
		return 0, nil
	}
	return 0, errWouldBlock
}

func (k *fakeKernel) send(fd int, a, b []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.sockets[fd]
	switch {
	case !c.closedAt.IsZero():
		return 0, unix.EBADF
	case c.err != nil:
		return 0, c.err
	case !c.shutAt.IsZero():
		return 0, unix.EPIPE
	case c.room == 0:
		return 0, errWouldBlock
	}
	p := bytes.Join([][]byte{a, b}, nil)
	if c.room > 0 {
		p = p[:min(len(p), c.room)]
		c.room -= len(p)
	}
	c.out = append(c.out, p...)
	c.writes++
	mark(&c.answeredAt)
	return len(p), nil
}

func (k *fakeKernel) sendFile(fd, file int, offset, n int64) (int, error) {
	p := make([]byte, n)
	size, err := unix.Pread(file, p, offset)
	if err != nil || size == 0 {
		return 0, err
	}
	return k.send(fd, p[:size], nil)
}

// unsent: a client takes what there is room for, unless it is said to have more
// in its buffer.
func (k *fakeKernel) unsent(fd int) int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sockets[fd].buffered
}

func (k *fakeKernel) unread(fd int) int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return int64(len(k.sockets[fd].in))
}

func (k *fakeKernel) shutdownWrite(fd int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.sockets[fd]
	if c.err != nil {
		return unix.ENOTCONN
	}
	mark(&c.shutAt)
	return nil
}

func (k *fakeKernel) shutdown(fd int) error {
	k.mu.Lock()
	c := k.sockets[fd]
	mark(&c.shutAt)
	c.err = unix.EPIPE
	k.mu.Unlock()
	c.event(reactor.Readable | reactor.Writable | reactor.PeerClosed | reactor.HungUp)
	return nil
}

func (k *fakeKernel) resetOnClose(fd int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sockets[fd].resets = true
}

func (k *fakeKernel) close(fd int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.sockets[fd]
	if !c.closedAt.IsZero() {
		k.t.Errorf("descriptor %d closed twice", fd)
	}
	mark(&c.closedAt)
	c.reset = c.shutAt.IsZero() && c.resets || len(c.in) > 0
	k.poller.Closed(fd)
	return nil
}

func mark(at *time.Time) {
	if at.IsZero() {
		*at = time.Now()
	}
}
