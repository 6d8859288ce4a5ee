package main

import (
	"bytes"
	"context"
	"net/http"
	"testing"

	"github.com/catamount-server/catamount/examples/internal/serving"
	"github.com/gorilla/websocket"
)

// A WebSocket goes through the proxy, with messages of all sizes, and ends on
// both sides when the client says so.
func TestUpgrade(t *testing.T) {
	ended := make(chan error, 1)
	onBoth(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := new(websocket.Upgrader).Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		for {
			kind, message, err := conn.ReadMessage()
			if err != nil {
				ended <- err
				return
			}
			if err := conn.WriteMessage(kind, message); err != nil {
				t.Error(err)
			}
		}
	}), func(t *testing.T, c chain) {
		ctx, cancel := context.WithTimeout(t.Context(), serving.Patience)
		defer cancel()
		conn, answer, err := websocket.DefaultDialer.DialContext(ctx, "ws://"+c.proxy.Addr, nil)
		if err != nil {
			t.Fatal(err, answer)
		}
		defer conn.Close()
		for _, size := range []int{0, 1, 125, 126, 70_000, 1 << 20} {
			message := bytes.Repeat([]byte{byte(size)}, size)
			if err := conn.WriteMessage(websocket.BinaryMessage, message); err != nil {
				t.Fatal(err)
			}
			if kind, got, err := conn.ReadMessage(); kind != websocket.BinaryMessage || !bytes.Equal(got, message) {
				t.Fatalf("%d bytes of kind %d for %d, %v", len(got), kind, size, err)
			}
		}
		if err := conn.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := conn.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
			t.Errorf("the client's end: %v", err)
		}
		if err := serving.WaitFor(t, ended); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
			t.Errorf("the backend's end: %v", err)
		}
	})
}

// A backend that refuses the upgrade is heard.
func TestRefusedUpgrade(t *testing.T) {
	onBoth(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }), func(t *testing.T, c chain) {
		conn, answer, err := websocket.DefaultDialer.DialContext(t.Context(), "ws://"+c.proxy.Addr, nil)
		if err != websocket.ErrBadHandshake || answer.StatusCode != http.StatusForbidden {
			t.Errorf("%v, %v", answer, err)
		}
		if conn != nil {
			conn.Close()
		}
	})
}
