package worker

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/catamount-server/catamount/parser"
)

// Failure is the cause of a failed write, as it is counted and logged.
type Failure uint8

const (
	FailureOther       Failure = iota
	FailureBrokenPipe          // EPIPE: the peer had closed or reset the connection before
	FailureReset               // ECONNRESET
	FailureTimedOut            // ETIMEDOUT: TCP gave up: the peer vanished, or had no room for longer than TCP_USER_TIMEOUT
	FailureUnreachable         // the network says that there is no way
	FailureTooSlow             // our own minimum rate
	FailureDeadline            // WriteTimeout, or the handler's own deadline (SetWriteDeadline)
	numFailures        = int(FailureDeadline) + 1
)

var failureNames = [numFailures]string{"other", "broken_pipe", "reset", "timed_out", "unreachable", "too_slow", "deadline"}

func (f Failure) String() string { return failureNames[f] }

// errExpectation: an Expect other than 100-continue (RFC 9110 section 10.1.1).
var errExpectation = errors.New("catamount: expectation cannot be met")

// Phase of a request that came too late.
type Phase uint8

const (
	PhaseHead Phase = iota // 408: the head was not whole in time
	PhaseBody              // 408: the body stopped, or came too slowly
	numPhases = int(PhaseBody) + 1
)

func (p Phase) String() string { return [numPhases]string{"head", "body"}[p] }

// refusal turns what TryToFinish returned into status, reason and detail: the
// one place where an error becomes an answer.
func refusal(err error) (status int, reason, detail string) {
	var bad *parser.Error
	switch {
	case errors.As(err, &bad):
		return bad.Status, bad.Reason.String(), bad.Detail
	case errors.Is(err, errExpectation):
		return http.StatusExpectationFailed, "expectation", ""
	case errors.Is(err, errBodyStorage):
		return http.StatusInsufficientStorage, "body_storage", ""
	}
	return http.StatusInternalServerError, "internal", ""
}

// appendRefusal appends the server's own answer. Details stay in the log: a
// client knows what it sent. A HEAD's has no body, as far as the method was
// understood (RFC 9110 section 9.3.2).
func (s *Server) appendRefusal(b []byte, status int, reason string, head bool) []byte {
	body := strconv.Itoa(status) + " " + statusText(status)
	if reason != "" {
		body += ": " + reason
	}
	body += "\n"
	b = appendStatusLine(b, true, status)
	b = append(b, "Content-Type: text/plain; charset=utf-8\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(body)), 10)
	b = append(b, "\r\n"...)
	b = append(b, s.date.now()...)
	b = append(b, "Connection: close\r\n\r\n"...)
	if head {
		return b
	}
	return append(b, body...)
}

// isHead reports whether what a client has sent, and what of it was not handed
// to a handler, is a HEAD request, or the beginning of one. fresh are bytes that
// are kept nowhere yet.
func (c *Client) isHead(fresh []byte) bool {
	if c.pending != nil && c.pending.x != nil {
		return c.pending.x.request.Method == http.MethodHead
	}
	return bytes.HasPrefix(bytes.TrimLeft(c.firstUnread(fresh), "\r\n"), []byte("HEAD "))
}

// firstUnread is unread, or what has just been read when nothing is kept.
func (c *Client) firstUnread(fresh []byte) []byte {
	if kept := c.unread(); len(kept) > 0 {
		return kept
	}
	return fresh
}

func statusText(status int) string {
	if text := http.StatusText(status); text != "" {
		return text
	}
	return "Error"
}

// noteRefusal counts and logs a request that was refused.
func (s *Server) noteRefusal(sl *slot, err error, fresh []byte) (status int, reason string) {
	c := &sl.Value
	status, reason, detail := refusal(err)
	var bad *parser.Error
	switch {
	case errors.As(err, &bad):
		s.stats.parseErrors[bad.Reason].Add(1)
	case errors.Is(err, errExpectation):
		s.stats.expectations.Add(1)
	default:
		s.stats.bodyStorageErrors.Add(1)
		s.log.error(limitKey{event: "body storage"}, "request body could not be stored", "peer", c.peerText(), "status", status, "err", err)
		return status, reason
	}
	first := c.firstUnread(fresh)
	message := "request refused"
	switch {
	case bad == nil:
	case bad.Reason == parser.ReasonTLSHello:
		message = "TLS handshake on a plain-text port"
	case isProxyHeader(first):
		message = "PROXY protocol, which is not spoken here"
	}
	s.log.warn(limitKey{event: reason, peer: c.peer.ip}, message,
		"peer", c.peerText(), "status", status, "reason", reason, "detail", detail,
		"bytes", strconv.Quote(string(first[:min(len(first), 64)])))
	return status, reason
}

// isProxyHeader recognises what balancers send before the first request when
// they are told to: version 1, a line, or version 2, with a signature in front.
// Version 2 begins with empty lines, which the parser has passed over or not.
func isProxyHeader(first []byte) bool {
	return bytes.HasPrefix(first, []byte("PROXY TCP")) || bytes.HasPrefix(first, []byte("PROXY UNKNOWN\r\n")) ||
		bytes.HasPrefix(bytes.TrimLeft(first, "\r\n"), []byte("\x00\r\nQUIT\n"))
}

// refuse answers a bad request on the reactor, and closes.
func (s *Server) refuse(sl *slot, err error, fresh []byte) {
	if err == errUnreadBody { // its request has been answered
		s.startLingering(sl)
		return
	}
	status, reason := s.noteRefusal(sl, err, fresh)
	s.answerAndClose(sl, status, reason, fresh)
}

// answerAndClose is the reactor's way to end a connection with an answer.
func (s *Server) answerAndClose(sl *slot, status int, reason string, fresh []byte) {
	c := &sl.Value
	head := c.isHead(fresh)
	p := c.ensurePending()
	if p.x != nil {
		p.x.abandon()
		p.x = nil
	}
	putBuffer(&inPool, p.in)
	p.in, p.off, p.parsing = nil, 0, false
	p.out, p.last = newOutput(), nil
	p.out.mem.B = s.appendRefusal(p.out.mem.B[:0], status, reason, head)
	c.then = thenLinger
	s.startWriting(sl)
}

// refuseFromPool does the same on a pool goroutine: the answers to the
// requests before it are sent first.
func (s *Server) refuseFromPool(sl *slot, sc *scratch, err error, fresh []byte) {
	if err == errUnreadBody {
		s.discard(&sl.Value)
		s.handBack(sl, sc, thenLinger)
		return
	}
	if sc.out.file.left > 0 {
		// The answer cannot be put behind a file. If the socket does not take that
		// now, the reactor comes across the request again when it has sent it.
		sl.Value.exchange.Store(nil)
		if !s.flush(sl, sc, thenIdle) {
			return
		}
	}
	status, reason := s.noteRefusal(sl, err, fresh)
	s.closeFromPool(sl, sc, status, reason, fresh)
}

func (s *Server) closeFromPool(sl *slot, sc *scratch, status int, reason string, fresh []byte) {
	c := &sl.Value
	sc.cur.B = s.appendRefusal(sc.cur.B[:0], status, reason, c.isHead(fresh))
	_ = s.join(sc)          // nothing of a file is before it
	sc.cur.B = sc.cur.B[:0] // whatever happens, it is not the place's next client's
	s.discard(c)
	s.handBack(sl, sc, thenLinger)
}

// noteTimeout counts and logs a 408.
func (s *Server) noteTimeout(sl *slot, now int64) {
	c := &sl.Value
	p := c.pending
	phase, bytes := PhaseHead, int64(0)
	if p.x != nil {
		phase, bytes = PhaseBody, p.x.body.arrived
	} else if p.in != nil {
		bytes = int64(len(p.in.B) - p.off)
	}
	s.stats.timeouts[phase].Add(1)
	attributes := []any{"peer", c.peerText(), "phase", phase.String(), "bytes", bytes, "elapsed", time.Duration(now - p.headAt)}
	if p.x != nil {
		attributes = append(attributes, "method", p.x.request.Method, "path", p.x.request.URL.Path)
	}
	s.log.warn(limitKey{event: "408", peer: c.peer.ip}, "request timed out (408)", attributes...)
}

// WriteFailure is an answer that did not reach its client, or not all of it.
type WriteFailure struct {
	Request *http.Request
	Status  int
	// Written is how many bytes of the body the socket has taken, at least; those
	// the client may or may not have seen. Total is how long the body is, -1 when
	// the handler had not finished and not said.
	Written, Total int64
	Elapsed        time.Duration // since the request was whole
	// Gone is how long ago the client had left, if Left says that it had.
	Left  bool
	Gone  time.Duration
	Cause Failure
	Err   error
}

// cutShort is for an answer that will not be whole. Where only the end of the
// connection ends it, the end has to be a reset: after an orderly one it would
// look whole, and a proxy that speaks HTTP/1.0 may keep it (RFC 9112 section 8).
// It reports whether that is the case; the connection must then be closed, and
// not be shut down first.
func (s *Server) cutShort(x *exchange) bool {
	if !x.response.untilClose || !x.response.begun {
		return false
	}
	s.sockets.resetOnClose(x.slot.FD())
	return true
}

// noteWriteFailure counts and logs an answer that did not reach its client, and
// tells the application. x is nil for an answer of the server's own; unsent is
// what the socket has not taken.
func (s *Server) noteWriteFailure(x *exchange, err error, unsent int64) {
	cause := failureOf(err)
	s.stats.writeFailures[cause].Add(1)
	if x == nil {
		return
	}
	s.cutShort(x)
	now := s.reactor.Now()
	w := &x.response
	f := WriteFailure{Request: &x.request, Status: w.status, Written: max(w.written-unsent, 0), Total: -1,
		Elapsed: time.Duration(now - x.queuedAt), Cause: cause, Err: err}
	if w.declared >= 0 {
		f.Total = w.declared
	} else if w.finished {
		f.Total = w.written
	}
	total := any("unknown")
	if f.Total >= 0 {
		total = f.Total
	}
	args := []any{"peer", x.request.RemoteAddr, "method", x.request.Method, "path", x.request.URL.Path, "status", f.Status,
		"written", f.Written, "total", total, "elapsed", f.Elapsed, "cause", cause.String(), "err", err}
	if gone := x.goneAt.Load(); gone != 0 {
		f.Left, f.Gone = true, time.Duration(now-gone)
		args = append(args, "client_left", f.Gone.String()+" ago")
	}
	s.log.warn(limitKey{event: "write " + cause.String(), peer: x.client().peer.ip}, "response not delivered", args...)
	if s.options.OnWriteFailure != nil {
		s.log.later(func() { s.options.OnWriteFailure(f) })
	}
}

// noteGone tells of a client that had closed its side, or was gone, before its
// answer could be sent. As far as the server can know the answer has been
// delivered: a client may close one side only.
func (s *Server) noteGone(x *exchange) {
	gone := x.goneAt.Load()
	if gone == 0 {
		return
	}
	now := s.reactor.Now()
	s.log.info(limitKey{event: "gone", peer: x.client().peer.ip}, "client closed before its answer was sent", "peer", x.request.RemoteAddr, "method", x.request.Method,
		"path", x.request.URL.Path, "status", x.response.status, "elapsed", time.Duration(now-x.queuedAt), "client_left", time.Duration(now-gone).String()+" ago")
}

// clientLeft: the peer closed its side, between requests as it may, or in the
// middle of one.
func (s *Server) clientLeft(c *Client) {
	if !c.inFlight() {
		return
	}
	s.stats.vanished.Add(1)
	s.log.info(limitKey{event: "vanished", peer: c.peer.ip}, "client left in the middle of a request", "peer", c.peerText(), "phase", c.phase())
}

// clientFailed: reading failed, as a rule because the peer reset the
// connection.
func (s *Server) clientFailed(c *Client, err error) {
	if !c.inFlight() {
		s.stats.dropped.Add(1)
		return
	}
	s.stats.vanished.Add(1)
	s.log.info(limitKey{event: "vanished", peer: c.peer.ip}, "connection failed in the middle of a request",
		"peer", c.peerText(), "phase", c.phase(), "err", err)
}

// bodyCut: the client of a streamed body left, or its connection failed (err is
// not nil then), before the body was whole.
func (s *Server) bodyCut(x *exchange, err error) {
	s.peerGone(x.slot)
	s.stats.vanished.Add(1)
	message, args := "client left in the middle of a request", []any{"peer", x.request.RemoteAddr, "phase", PhaseBody.String(),
		"method", x.request.Method, "path", x.request.URL.Path, "bytes", x.body.arrived}
	if err != nil {
		message, args = "connection failed in the middle of a request", append(args, "err", err)
	}
	s.log.info(limitKey{event: "vanished", peer: x.client().peer.ip}, message, args...)
}

// bodyTooSlow: the handler of a streamed body waited in vain. What the client
// gets for it is the handler's decision.
func (s *Server) bodyTooSlow(x *exchange, waited time.Duration) {
	s.stats.timeouts[PhaseBody].Add(1)
	s.log.warn(limitKey{event: "408", peer: x.client().peer.ip}, "request body timed out while the handler read it",
		"peer", x.request.RemoteAddr, "method", x.request.Method, "path", x.request.URL.Path, "bytes", x.body.arrived, "waited", waited)
}

// peerText is how a client is named in the log.
func (c *Client) peerText() string {
	if c.bridged != nil {
		return c.bridged.remote
	}
	return c.peer.String()
}

func (c *Client) phase() string {
	if c.pending != nil && c.pending.x != nil {
		return PhaseBody.String()
	}
	return PhaseHead.String()
}

// panicValue makes a panic's value printable.
func panicValue(v any) string {
	if v == nil {
		return "the handler ended its goroutine (runtime.Goexit)"
	}
	return fmt.Sprint(v)
}
