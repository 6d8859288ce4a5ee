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
	values   [inlineValues]string // the values of the first header fields
	response response
	context  requestContext

	server *Server
	slot   *slot
	client *Client
	// listener is where the connection came from.
	listener *listener
	peer     address
	body     *requestBody // nil when there is none
	place    int          // the pool place that serves it; -1 before
	// expectContinue: the client waits for 100 Continue before it sends the body.
	expectContinue bool

	goneAt   atomic.Int64 // when the reactor saw the peer leave; 0: it has not
	queuedAt int64        // when it was handed to the pool, on the reactor's clock
	headAt   int64        // when its first byte came
	bodyAt   int64        // when its head was whole
}

// inlineValues header values need no allocation of their own. Eight covers what
// curl and most programs send; browsers send about twice as many.
const inlineValues = 8

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
