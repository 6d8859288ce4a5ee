// Package page is the memory that a master and its workers share: one mapped
// file without a name, full of counters.
//
// The master creates it and hands its descriptor to every worker, and to itself
// when it executes a new program in place; so what is counted outlives workers
// and restarts, and never goes back. A worker has a [Slot] of it, by its index:
// the worker's gauges, which its siblings read when they decide who accepts a
// connection, what it counts, and what it is serving, which is how the master
// knows what a worker died of. Counters of the application are in the page too
// ([Page.Counter], [Page.Limiter]).
//
// The callers: package cluster (the master's words), package worker (a slot's),
// and the root package for the application's counters.
//
// The invariant: every word has one writer, or is only added to or swapped, and
// all access is atomic (the text of a request in flight excepted, which is for
// show). There are no locks and no pointers in it, so that a process that is
// killed at any moment leaves nothing behind that others wait for.
package page
