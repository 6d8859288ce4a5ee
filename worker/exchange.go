package worker

import (
	"context"
	"net/http"
	"net/url"
	"reflect"
	"sync/atomic"
	"unsafe"

	"github.com/catamount-server/catamount/reactor"
)

// slot is the place of a client in the reactor.
type slot = reactor.Slot[Client]

// exchange is one request and its answer: everything that a handler may keep a
// pointer into, in one object that is made for the request and never used
// again. Handlers, loggers, http.TimeoutHandler and httputil.ReverseProxy do
// keep requests, header maps and strings; so only buffers are pooled here, and
// only when nothing can point at them.
type exchange struct {
	request  http.Request
	url      url.URL
	values   [inlineValues]string // of the first header fields
	response response
	context  requestContext

	server   *Server
	slot     *slot
	listener *listener    // where the connection came from
	body     *requestBody // nil when there is none
	place    int32        // the pool place that serves it; -1 before

	goneAt   atomic.Int64 // when the reactor saw the peer leave; 0: it has not
	queuedAt int64        // when it was handed to the pool, on the reactor's clock

	text [inlineText]byte // the head's bytes, when they are few; see headText
}

// client is the connection. Not to be used once the handler has returned: the
// slot may be another's by then.
func (x *exchange) client() *Client { return &x.slot.Value }

// inlineValues header values need no allocation of their own. Six covers what
// curl and most programs send, and keeps an exchange small; browsers send about twice as many.
const inlineValues = 6

// inlineText bytes of head and peer's address need no allocation of their own
// either. It is what is left to the allocator's next size class, 896 bytes.
const inlineText = 120

// contextOffset is where http.Request keeps its context. The field is not
// exported, and the way through Request.WithContext copies the whole request
// (an allocation of 256 bytes). Should a later Go not have it, 0 makes
// setContext take that way.
var contextOffset = func() uintptr {
	field, ok := reflect.TypeFor[http.Request]().FieldByName("ctx")
	if !ok || field.Type.String() != "context.Context" {
		return 0
	}
	return field.Offset
}()

// setContext puts the exchange's context into its request.
func (x *exchange) setContext() {
	if contextOffset == 0 {
		x.request = *x.request.WithContext(&x.context)
		return
	}
	*(*context.Context)(unsafe.Add(unsafe.Pointer(&x.request), contextOffset)) = &x.context
}
