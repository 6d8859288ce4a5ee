package main

import (
	"bufio"
	"crypto/sha1" // what RFC 6455 wants
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Just enough of RFC 6455 to move messages both ways: single frames, text,
// binary, ping and close.

type opcode byte

const (
	binaryFrame opcode = 2
	closeFrame  opcode = 8
	pingFrame   opcode = 9
	pongFrame   opcode = 10

	finalBit = 0x80
	maskBit  = 0x80

	maxMessage = 1 << 20
	socketIdle = 2 * patience // how long either side waits for the other
)

func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// appendFrame appends a frame; a mask other than 0 is applied to the payload.
func appendFrame(b []byte, code opcode, payload []byte, mask uint32) []byte {
	masked := byte(0)
	if mask != 0 {
		masked = maskBit
	}
	b = append(b, finalBit|byte(code))
	switch n := len(payload); {
	case n < 126:
		b = append(b, masked|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, masked|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, masked|127), uint64(n))
	}
	if mask == 0 {
		return append(b, payload...)
	}
	b = binary.BigEndian.AppendUint32(b, mask)
	from := len(b)
	b = append(b, payload...)
	applyMask(b[from:], mask)
	return b
}

func applyMask(b []byte, mask uint32) {
	key := binary.BigEndian.AppendUint32(nil, mask)
	for i := range b {
		b[i] ^= key[i%4]
	}
}

func readFrame(r *bufio.Reader) (code opcode, payload []byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:2]); err != nil {
		return 0, nil, err
	}
	if head[0]&finalBit == 0 || head[0]&0x70 != 0 {
		return 0, nil, fmt.Errorf("frame begins with %#x", head[0])
	}
	code, masked, n := opcode(head[0]&0x0f), head[1]&maskBit != 0, uint64(head[1]&^maskBit)
	switch n {
	case 126:
		_, err = io.ReadFull(r, head[:2])
		n = uint64(binary.BigEndian.Uint16(head[:2]))
	case 127:
		_, err = io.ReadFull(r, head[:8])
		n = binary.BigEndian.Uint64(head[:8])
	}
	if err == nil && n > maxMessage {
		err = fmt.Errorf("frame of %d bytes", n)
	}
	mask := uint32(0)
	if err == nil && masked {
		_, err = io.ReadFull(r, head[:4])
		mask = binary.BigEndian.Uint32(head[:4])
	}
	if err != nil {
		return 0, nil, err
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(r, payload)
	if mask != 0 {
		applyMask(payload, mask)
	}
	return code, payload, err
}

// socket is the handler: it takes the connection and sends back what comes.
func (a *app) socket(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Sec-WebSocket-Key")
	if key == "" {
		http.Error(w, "no WebSocket", http.StatusBadRequest)
		return
	}
	raw, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return // the client has gone
	}
	a.sockets.Add(1)
	defer a.sockets.Add(-1)
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(socketIdle))
	_, err = io.WriteString(raw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: "+acceptKey(key)+"\r\n\r\n")
	for err == nil {
		var code opcode
		var payload []byte
		if code, payload, err = readFrame(buffered.Reader); err != nil {
			return
		}
		_ = raw.SetDeadline(time.Now().Add(socketIdle))
		if code == pingFrame {
			code = pongFrame
		}
		_, err = raw.Write(appendFrame(nil, code, payload, 0))
		if code == closeFrame {
			return
		}
	}
}

// beWebSocket exchanges messages and leaves, cleanly or not.
func beWebSocket(c *client) {
	conn, ok := c.dial(0)
	if !ok {
		return
	}
	defer conn.Close()
	messages := 1 + c.size(50)
	early := 0
	if c.chance(50) { // messages that come together with the handshake
		early = 1 + c.random.IntN(min(messages, 3))
	}
	if err := c.talk(conn, messages, early); err != nil {
		c.unexpected("%s: %v", c.name, err)
		return
	}
	c.tally.answered(0)
	if c.chance(30) {
		conn.vanish(true)
		return
	}
	_, err := conn.Write(appendFrame(nil, closeFrame, []byte{3, 232}, c.random.Uint32()|1)) // 1000: done
	if err == nil {
		var code opcode
		if code, _, err = readFrame(conn.reader); err == nil && code != closeFrame {
			err = fmt.Errorf("frame %d, want a close", code)
		}
	}
	if err == nil {
		err = conn.atEnd()
	}
	c.check(err, "%s: closing: %v", c.name, err)
}

// talk does the handshake and then sends messages, each of which has to come
// back. The first ones go with the handshake.
func (c *client) talk(conn *conn, messages, early int) error {
	key := base64.StdEncoding.EncodeToString(c.content(16).bytes())
	raw := []byte("GET /socket HTTP/1.1\r\nHost: soak.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + "\r\n\r\n")
	sizes := make([]content, messages)
	for i := range sizes {
		sizes[i] = c.content(c.size(100 << 10))
		if i < early {
			sizes[i].size %= 5000
			raw = appendFrame(raw, binaryFrame, sizes[i].bytes(), c.random.Uint32()|1)
		}
	}
	if _, err := conn.Write(raw); err != nil {
		return err
	}
	response, err := conn.readHead(http.MethodGet)
	if err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	if response.StatusCode != http.StatusSwitchingProtocols || response.Header.Get("Sec-WebSocket-Accept") != acceptKey(key) {
		return fmt.Errorf("handshake: status %d, key %q", response.StatusCode, response.Header.Get("Sec-WebSocket-Accept"))
	}
	for i, message := range sizes {
		code := binaryFrame
		if i >= early {
			if message.size < 126 && c.chance(50) {
				code = pingFrame
			}
			if _, err := conn.Write(appendFrame(nil, code, message.bytes(), c.random.Uint32()|1)); err != nil {
				return fmt.Errorf("message %d of %d: %w", i+1, messages, err)
			}
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		if err := expectFrame(conn.reader, code, message); err != nil {
			return fmt.Errorf("message %d of %d (%d with the handshake): %w", i+1, messages, early, err)
		}
		if i+1 >= early && !c.pace(c.between(0, 100*time.Millisecond)) {
			return nil
		}
	}
	return nil
}

func expectFrame(r *bufio.Reader, sent opcode, message content) error {
	want := sent
	if sent == pingFrame {
		want = pongFrame
	}
	code, payload, err := readFrame(r)
	if err != nil {
		return err
	}
	if code != want {
		return fmt.Errorf("frame %d, want %d", code, want)
	}
	check := &checker{want: message}
	if _, err := check.Write(payload); err != nil {
		return err
	}
	return check.whole()
}
