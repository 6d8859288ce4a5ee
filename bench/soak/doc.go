// Command soak sends mixed traffic of every kind at one Catamount server, for
// as long as it is told to, and then proves that nothing was lost or leaked:
//
//	go -C bench run ./soak -d 10m               ten minutes
//	go -C bench run ./soak -d 1m -seed 7 -v     the same choices again, and every event
//	go -C bench run ./soak -kinds good,broken   only these clients
//	go -C bench test ./soak                     a few seconds of it, and that it finds what it looks for
//
// The server is a process of its own: this program, executed again as "soak
// -serve" (process.go, server.go, handlers.go, measure.go). Its handlers do what
// applications do, good and bad; its deadlines are short and its memory for
// answers is small, so that a run meets all limits. It answers commands on its
// standard input with what it knows about itself: goroutines, descriptors,
// temporary files, memory, Server.Stats.
//
// The clients (kinds.go, client.go) are groups of goroutines, each with random
// numbers of its own that come from the seed. Good ones check every byte of
// every answer (good.go, requests.go, answer.go, content.go); slow ones trickle
// or read slowly (slow.go); rude ones send nonsense or vanish (broken.go,
// rude.go); some speak WebSocket (websocket.go). A good request is lost when it
// was sent on a connection that the server had not announced to close, and no
// complete and correct answer came.
//
// When the time is over the clients finish what they began and leave. Then the
// server must be as it was before: no connection, the same goroutines (besides
// those that rest in its pool) and descriptors, no file, heap in use within a
// few megabytes, and figures that add up (report.go). At last it is shut down.
// Whatever is wrong is listed, and the program ends with status 1.
//
// The invariant: what a client expects follows from what it sent and from the
// contract in docs/, never from timing. Where two outcomes are right, because
// bytes and a deadline cross, both are. And when the clients' own process gets
// no processor for most of a deadline (watch.go), what was under way is counted
// apart and proves nothing.
package main
