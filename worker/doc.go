// Package worker is one serving process: all HTTP behaviour lives here, between
// the reactor, the thread pool and the parser.
//
// Who calls it: the root package, which fills in its Options and runs it alone or
// under a master. What a reader meets, in the order of a request:
//
//	accept.go    listeners and the gate that decides when to accept
//	wakeup.go    what the reactor does: read, hand over, time out, write on
//	client.go    Client, the life of one connection; TryToFinish
//	state.go     its states, with the transitions
//	request.go   a whole head becomes an *http.Request (exchange.go, context.go)
//	body.go      bodies, and where they are kept (bodystore.go, blocks.go)
//	process.go   what a pool goroutine does: serve, next request, give back
//	response.go  the http.ResponseWriter (head.go, responsecontrol.go, sniff.go, date.go)
//	write.go     the only place that sends a handler's bytes
//	lend.go      answers to pipelined requests leave together, but never late
//	overload.go  the todo bounded by length and age: 503 (unavailable.go)
//	handlertimeout.go  a handler's deadline
//	linger.go    closing without a reset
//	failures.go  where an error becomes an answer, a count and a log line
//	blocking.go  the mode without a reactor
//	bridge.go    listeners that are no plain sockets
//
// and of a worker's life beside its master and its siblings:
//
//	inheritance.go, message.go  what the processes leave and tell each other
//	child.go     attached to the master; signals.go
//	serve.go     the inherited listeners are served
//	gate.go      who of the siblings accepts a connection
//	heart.go     pings, and what the shared page is told (pagestats.go)
//	leave.go     how a worker leaves; handover.go, connections that siblings get
//
// Who owns what: a Client belongs to the reactor's goroutine or to one pool
// goroutine, never to both (package reactor has the protocol). An exchange, the
// request with its response and context, is made for one request and belongs to
// the handler for ever; only buffers are reused, and they belong to a pool
// place (scratch) or, while something is unfinished, to the client (pending).
//
// The invariant: after a handler has returned, or its deadline has taken the
// client from it, nothing that it kept can reach the connection or a buffer.
package worker
