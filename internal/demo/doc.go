// Package demo is the app that "catamount serve" serves when it is given no
// other: a page that shows which process and which place of the thread pool
// answered, and a handful of endpoints to try a server with.
//
//	/         the page
//	/echo     the request back: its body, or its method and headers
//	/slow     waits ?ms= milliseconds (1000, at most 60000) on its pool place
//	/stream   ?n= lines (10, at most 600), one each 200 ms, flushed
//	/upload   a form; by POST or PUT the size, SHA-256 and time of what came
//	/info     who served this request, as JSON
//
// It is an ordinary app: it uses the standard library only, knows the server
// through one function in [Options], and runs on any [net/http] server.
// Everything is embedded; nothing is read from disk or from the network. Its
// one invariant: no request can make it hold more than a constant amount of
// memory, or a pool place for ever.
package demo
