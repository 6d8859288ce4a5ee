// Package parser turns bytes into HTTP/1.x requests, strictly. It does no I/O
// and knows no clock, log or pool.
//
// [Head] takes the head of a request and [ChunkedDecoder] the body of one that
// is chunked; [Limits] say how much of each a client may send. Both give one of
// three answers: done (nil for a head, io.EOF for a body), not yet
// ([ErrIncomplete]), or never ([*Error], with the status to answer and a
// [Reason] to count).
//
// Package worker calls it, from the reactor with what has come so far and from
// a pool goroutine for the next request of the same client. The caller owns all
// bytes: a Head keeps offsets into them, no pointers, so they may move between
// two calls; data from a decoder is a part of what went in. Head and decoder
// belong to one client at a time and are reused for its next request.
//
// The invariant: an answer depends on the bytes only, never on the pieces they
// came in. Whether whole, byte by byte or cut anywhere, a request gives the
// same fields or the same error at the same byte. For that each byte is looked
// at in its order, a constant number of times, and where a limit is reached
// before a wrong byte, the limit is the error.
//
// # Strictness
//
// What two servers read differently lets a client smuggle a request past the
// first of them. So where RFC 9112 leaves a choice between repairing and
// refusing, the choice is to refuse:
//
//   - Lines end with CRLF only, and are not folded. One SP parts the pieces of
//     the request line. Nothing stands between a field name and its colon.
//   - A few empty lines before the request are skipped (RFC 9112 section 2.2).
//   - The method is any token, in its case. A target has one of the four forms
//     of RFC 9112 section 3.2, that of its method. Bytes from 0x80 on are taken
//     in targets and values, because real clients send them.
//   - The version is HTTP/1.x. The preface of HTTP/2, "PRI * HTTP/2.0" without
//     fields, is let through as a request, as net/http does, for the handlers
//     that live on it.
//   - At most one Host, and exactly one from HTTP/1.1 on, except for CONNECT. It is a
//     host and perhaps a port.
//   - At most one Content-Length, of digits only; or one Transfer-Encoding,
//     which is "chunked" and not in HTTP/1.0; never both.
//   - Chunk sizes are hexadecimal digits with ';' or CRLF right behind them.
//
// The target is not decoded: "/%zz" passes, and is for whoever makes a URL of
// it to refuse.
package parser
