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
	response response
	context  requestContext

	server   *Server
	slot     *slot
	listener *listener    // where the connection came from
	body     *requestBody // nil when there is none
	place    int32        // the pool place that serves it; -1 before

	goneAt   atomic.Int64 // when the reactor saw the peer leave; 0: it has not
	queuedAt int64        // when it was handed to the pool, on the reactor's clock
}

// client is the connection. Not to be used once the handler has returned: the
// slot may be another's by then.
func (x *exchange) client() *Client { return &x.slot.Value }

// Most exchanges come with room behind them for the head's bytes and the values
// of its fields, which saves two allocations. Each shape fills one of the
// allocator's size classes (768, 896 and 1280 bytes, of which it keeps eight).
type (
	// bareExchange is for requests without other fields than Host, such as load
	// generators and health checks send.
	bareExchange struct {
		exchange
		text [96]byte
	}
	// fewExchange is for curl and most programs.
	fewExchange struct {
		exchange
		values [4]string
		text   [160]byte
	}
	// usualExchange is for browsers.
	usualExchange struct {
		exchange
		values [8]string
		text   [480]byte
	}
)

// makeExchange makes one with room for so many values and bytes of text.
func makeExchange(values, text int) (*exchange, []string, []byte) {
	switch {
	case values == 0 && text <= len(bareExchange{}.text):
		x := new(bareExchange)
		return &x.exchange, nil, x.text[:text]
	case values <= len(fewExchange{}.values) && text <= len(fewExchange{}.text):
		x := new(fewExchange)
		return &x.exchange, x.values[:], x.text[:text]
	case values <= len(usualExchange{}.values) && text <= len(usualExchange{}.text):
		x := new(usualExchange)
		return &x.exchange, x.values[:], x.text[:text]
	}
	return new(exchange), make([]string, values), make([]byte, text)
}

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
