// Package cluster is the master: it starts workers, watches them and replaces
// them. It serves nothing and runs no code of the application, so that its heap
// stays small and a fault of the application cannot end it.
//
// Who calls it: the root package, which fills in Options, and in the processes
// that the master starts runs package worker.
//
//	           signals, Stop, Scale, PhasedRestart …
//	                          │
//	                     ┌────▼────┐   one goroutine, one select
//	                     │ master  │   listening sockets: bound once, by the master
//	                     └─┬─┬─┬─┬─┘
//	messages: h b p e t i f│ │ │ │ check pipe: its end is the master's
//	 a pipe for each worker│ │ │ │ (a pipe for each worker)
//	                     ┌─▼─┴─▼─┴─┐      hand-over sockets      ┌─────────┐
//	                     │ worker 0 ├─────────────────────────────┤ worker 1 │ …
//	                     └────┬─────┘  idle connections of one   └────┬─────┘
//	                          │        that leaves                    │
//	                   ┌──────▼───────────────────────────────────────▼──────┐
//	                   │ shared page: a slot each; the master's words, too   │
//	                   └─────────────────────────────────────────────────────┘
//
// What a reader meets:
//
//	cluster.go        Cluster: New, Run, the loop
//	check.go          decisions: pure functions over handles and a time
//	worker_handle.go  what is known of one worker, and its stages
//	supervise.go      carrying decisions out: start, dismiss, kill, reap
//	events.go         what workers write
//	restart.go        phases: first start, phased restart, giving up
//	task.go           processes that prepare a phase or check a new program
//	hot.go, state.go  another program in the same process, and back
//	hold.go           signals between the two
//	stop.go           signals and the end; orphans of process 1
//	program.go        what a phase executes; spawn.go: executing it
//	binder.go, bind.go  listening sockets
//	pages.go, stats.go  the shared page and what it counts
//	limits.go         what control groups allow, and each worker's share
//	title.go          names for ps
//
// Who owns what: the goroutine of Run owns all state of a Cluster; readers of
// pipes, signals and callers send it something over a channel. The listening
// sockets, the hand-over sockets, the page and the programs (as descriptors) are
// the master's from New to the end of Run; children get copies. A child's end is
// the end of its pipe and a SIGCHLD, the master's is the end of the check pipe:
// nobody polls.
//
// A worker's index is its slot in the page. A replacement serves before the
// worker that it replaces leaves, so it has another index: with N workers the
// indexes are 0 to N, not always the same N of them.
//
// The invariant: as many workers serve as wanted, unless workers die or cannot
// boot. No decision takes one away before its successor serves, and no restart
// touches anything before it is known to be possible.
package cluster
