package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/catamount-server/catamount/examples/internal/serving"
	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
)

// peer is a client's side of a WebSocket.
type peer interface {
	write(text bool, message []byte) error
	// read returns the next message; an error of nil, and no message, is the
	// answer to bye.
	read() (text bool, message []byte, err error)
	// ping may be called while somebody reads, and pings tells how many have
	// been answered.
	ping() error
	pings() int
	// bye starts the closing handshake. Those who read go on until its end.
	bye() error
	close()
}

// dialers are the libraries' names.
var dialers = map[string]func(ctx context.Context, url string) (peer, error){
	"gorilla": dialGorilla,
	"coder":   dialCoder,
}

type gorillaPeer struct {
	conn  *gorilla.Conn
	pongs atomic.Int64
}

func dialGorilla(ctx context.Context, url string) (peer, error) {
	conn, answer, err := gorilla.DefaultDialer.DialContext(ctx, url, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", err, answer)
	}
	p := &gorillaPeer{conn: conn}
	conn.SetPongHandler(func(string) error { p.pongs.Add(1); return nil })
	_ = conn.SetReadDeadline(time.Now().Add(5 * serving.Patience))
	return p, nil
}

func (p *gorillaPeer) write(text bool, message []byte) error {
	kind := gorilla.BinaryMessage
	if text {
		kind = gorilla.TextMessage
	}
	return p.conn.WriteMessage(kind, message)
}

func (p *gorillaPeer) read() (bool, []byte, error) {
	kind, message, err := p.conn.ReadMessage()
	if gorilla.IsCloseError(err, gorilla.CloseNormalClosure) {
		// The server closes first (RFC 6455 section 7.1.1).
		if n, err := p.conn.NetConn().Read(make([]byte, 1)); err != io.EOF {
			return false, nil, fmt.Errorf("behind the end: %d bytes, %w", n, err)
		}
		return false, nil, nil
	}
	return kind == gorilla.TextMessage, message, err
}

func (p *gorillaPeer) ping() error {
	return p.conn.WriteControl(gorilla.PingMessage, []byte("ping"), time.Now().Add(serving.Patience))
}

func (p *gorillaPeer) pings() int { return int(p.pongs.Load()) }

func (p *gorillaPeer) bye() error {
	return p.conn.WriteControl(gorilla.CloseMessage, gorilla.FormatCloseMessage(gorilla.CloseNormalClosure, "bye"), time.Now().Add(serving.Patience))
}

func (p *gorillaPeer) close() { p.conn.Close() }

type coderPeer struct {
	conn  *coder.Conn
	ctx   context.Context
	pongs atomic.Int64
}

func dialCoder(ctx context.Context, url string) (peer, error) {
	conn, answer, err := coder.Dial(ctx, url, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", err, answer)
	}
	conn.SetReadLimit(largestMessage)
	return &coderPeer{conn: conn, ctx: ctx}, nil
}

func (p *coderPeer) write(text bool, message []byte) error {
	kind := coder.MessageBinary
	if text {
		kind = coder.MessageText
	}
	return p.conn.Write(p.ctx, kind, message)
}

func (p *coderPeer) read() (bool, []byte, error) {
	kind, message, err := p.conn.Read(p.ctx)
	return kind == coder.MessageText, message, err
}

func (p *coderPeer) ping() error {
	err := p.conn.Ping(p.ctx) // waits for the pong
	if err == nil {
		p.pongs.Add(1)
	}
	return err
}

func (p *coderPeer) pings() int { return int(p.pongs.Load()) }

// bye waits for the other side's part of the handshake itself.
func (p *coderPeer) bye() error { return p.conn.Close(coder.StatusNormalClosure, "bye") }

func (p *coderPeer) close() { _ = p.conn.CloseNow() }

// closedNormally is for what the server saw, whatever the library.
func closedNormally(err error) bool {
	var theirs coder.CloseError
	return gorilla.IsCloseError(err, gorilla.CloseNormalClosure) || errors.As(err, &theirs) && theirs.Code == coder.StatusNormalClosure
}

// messages are parts of the same bytes: none needs memory of its own.
type messages struct {
	binary, text []byte
	largeEvery   int // how many messages there are for a large one
}

func newMessages(largeEvery int) *messages {
	m := &messages{make([]byte, 100_000), make([]byte, 100_000), largeEvery}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range m.binary {
		m.binary[i] = byte(random.Uint32())
		m.text[i] = 'a' + m.binary[i]%26
	}
	return m
}

// of returns a message that differs from its neighbours. 125 and 126 bytes are
// on both sides of a limit of the framing, and so are 65535 and 70000.
func (m *messages) of(connection, i int) (text bool, message []byte) {
	size := []int{125, 0, 1, 126, 1000}[i%5]
	if i%m.largeEvery == m.largeEvery-1 {
		size = []int{70_000, 65_535}[i/m.largeEvery%2]
	}
	offset := (connection*131 + i*17) % (len(m.text) - size)
	if i%3 == 0 {
		return false, m.binary[offset : offset+size]
	}
	return true, m.text[offset : offset+size]
}

// converse sends n messages, and pings between them, while it reads what comes
// back, and says goodbye. It is never more than a few messages ahead.
func (m *messages) converse(t *testing.T, p peer, connection, n int) {
	const pingEvery, ahead = 25, 4
	window, read := make(chan struct{}, ahead), make(chan error, 1)
	go func() {
		defer close(read)
		read <- m.readAll(p, connection, n, window)
	}()
	_, isGorilla := p.(*gorillaPeer)
	for i := range n {
		select {
		case window <- struct{}{}:
		case err := <-read:
			t.Errorf("connection %d, before message %d: %v", connection, i, err)
			return
		}
		if err := p.write(m.of(connection, i)); err != nil {
			t.Errorf("connection %d, message %d: %v", connection, i, err)
			return
		}
		if i%pingEvery == 0 { // while there is something to come, for somebody reads then
			if err := p.ping(); err != nil {
				t.Errorf("connection %d, ping at %d: %v", connection, i, err)
				return
			}
		}
	}
	if isGorilla { // its reader reads the end as well
		if err := p.bye(); err != nil {
			t.Errorf("connection %d: %v", connection, err)
		}
	}
	if err := <-read; err != nil {
		t.Errorf("connection %d: %v", connection, err)
	}
	if !isGorilla {
		if err := p.bye(); err != nil {
			t.Errorf("connection %d: %v", connection, err)
		}
	}
	if want := (n + pingEvery - 1) / pingEvery; p.pings() != want {
		t.Errorf("connection %d: %d pings answered, want %d", connection, p.pings(), want)
	}
}

func (m *messages) readAll(p peer, connection, n int, window <-chan struct{}) error {
	for i := range n {
		wantText, want := m.of(connection, i)
		text, got, err := p.read()
		if err != nil || text != wantText || !bytes.Equal(got, want) {
			return fmt.Errorf("message %d: %d bytes, text %t, for %d, text %t, %w", i, len(got), text, len(want), wantText, err)
		}
		<-window
	}
	if _, ok := p.(*gorillaPeer); ok {
		if _, message, err := p.read(); err != nil || message != nil {
			return fmt.Errorf("at the end: %q, %w", message, err)
		}
	}
	return nil
}
