package worker

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"net"
	"net/http"
	"time"
)

// What handlers reach through http.ResponseController and the optional
// interfaces of a ResponseWriter, besides Flush, which is part of writing.

// over is why the connection is not the response's any more; nil: it is. The
// mutex is held.
func (w *response) over() error {
	switch {
	case w.hijacked:
		return http.ErrHijacked
	case w.finished:
		return errFinished
	}
	return nil
}

// SetWriteDeadline is for http.ResponseController: a Write or Flush that has to
// wait for the client until then fails with os.ErrDeadlineExceeded. It replaces
// the server's WriteTimeout; a zero time removes both.
func (w *response) SetWriteDeadline(deadline time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.over(); err != nil { // once it is finished the reactor may be sending it, without the lock
		return err
	}
	w.deadline = 0
	if !deadline.IsZero() {
		s := w.x.server
		w.deadline = max(s.reactor.Now()+int64(time.Until(deadline)), 1)
	}
	return nil
}

// SetReadDeadline is for http.ResponseController: reads of the body fail with
// os.ErrDeadlineExceeded from then on. For a body that streams it replaces the
// server's own limits, also when it is zero: then the handler waits for ever.
func (w *response) SetReadDeadline(deadline time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.over(); err != nil {
		return err
	}
	if w.x.body != nil {
		w.x.body.setReadDeadline(deadline)
	}
	return nil
}

// EnableFullDuplex is for http.ResponseController. There is nothing to enable:
// a handler may always read and write as it likes.
func (w *response) EnableFullDuplex() error { return nil }

// sendContinue sends 100 Continue, unless the answer has begun: then it has said
// that the connection ends, because the client may keep its body.
func (w *response) sendContinue() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.composed || w.finished || w.hijacked || !w.atLeast11 {
		return nil
	}
	if w.err != nil {
		return w.err
	}
	if err := w.x.server.sendFirst(w, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
		return err
	}
	w.x.streamed().wantsContinue.Store(false)
	return nil
}

// Hijack implements http.Hijacker.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	var behind []byte // of a body that streams
	if b := w.x.streamed(); b != nil {
		unread, rest := b.end(http.ErrHijacked)
		behind = append(bytes.Clone(unread), rest...)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := cmp.Or(w.over(), w.err); err != nil {
		return nil, nil, err
	}
	if w.wroteHeader {
		if !w.composed {
			w.compose(false, nil)
		}
		w.emitHeld()
	}
	return w.x.server.hijack(w, behind)
}

// CloseNotify implements http.CloseNotifier, which old handlers use.
func (w *response) CloseNotify() <-chan bool {
	gone := make(chan bool, 1)
	context.AfterFunc(&w.x.context, func() {
		w.mu.Lock()
		returned := w.finished
		w.mu.Unlock()
		if !returned {
			gone <- true
		}
	})
	return gone
}
