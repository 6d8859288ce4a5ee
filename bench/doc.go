// Command bench measures Catamount beside other servers, and its reactor beside
// its blocking mode, and writes a report that can be compared:
//
//	go -C bench run . -list                        scenarios and servers
//	go -C bench run .                              all of them, some 25 minutes
//	go -C bench run . -out DIR hello latency       two of them, into an earlier report
//	go -C bench run . -servers catamount,nethttp   two servers
//	go -C bench run . -quick                       under two minutes: does it all work?
//
// The directory gets report.md, report.html and results.json, which has every
// sample. docs/benchmarks.md says how it is measured and what the figures mean.
//
// main reads flags and writes progress; the packages below it are
//
//	scenario   what is measured: a table of questions
//	server     what is compared: a table of servers, each a process of its own
//	load       who asks: wrk, closed loops, constant rates, slow and idle crowds
//	measure    what the kernel charges for it: CPU time and memory
//	process    children: pinned, told words, answering JSON
//	result     what is kept: results.json
//	report     what is read: tables, plots, targets
//	stats      medians and ratios
//
// Its one invariant: whatever a scenario starts ends with this process, however
// that ends.
package main
