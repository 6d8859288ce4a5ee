// Command compare measures Catamount beside net/http and fasthttp on one
// machine, and prints figures that can be compared:
//
//	go -C bench run ./compare                  CPU per request
//	go -C bench run ./compare -pipeline 16     the same, 16 requests in a row
//	go -C bench run ./compare -idle 10000      memory per idle connection
//	go -C bench run ./compare -slow 5000       throughput beside slow clients
//
// Each server is a process of its own with GOMAXPROCS=1 on the first
// processor: this program, executed again as "compare -serve <name>". The load
// (wrk, and this program again as "compare -client <kind>") runs on the second.
// Servers take turns, A B C A B C, each time as a fresh process, so that what
// the machine does meanwhile hits all of them; ratios are taken within a round.
//
// The answer is always the same 13 bytes of text/plain, over keep-alive
// connections on the loopback interface; net/http and Catamount run the very
// same http.Handler. CPU per request is what the kernel charged the server's
// process, user and system, divided by the requests that wrk completed:
// unlike requests per second, it hardly depends on how fast the load is.
//
// Two things to know when reading the figures: other programs on the two
// processors disturb them (the column "busy" tells), and slow clients share a
// processor with wrk, so that what they take ("their CPU") is missing from the
// ordinary clients' throughput without being the server's fault.
package main
