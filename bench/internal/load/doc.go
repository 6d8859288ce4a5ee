// Package load makes the traffic of the bench, always from processes of their
// own on the load's processor:
//
//   - wrk, where it is installed, or closed loops of this package's own: each
//     connection sends its next request when it has the answer;
//   - steady load: one goroutine over epoll and raw sockets, for thousands of
//     connections and for constant rates whose latencies count from when a
//     request was due, not from when it could be sent;
//   - crowds: connections that rest, trickle, read slowly or wait.
//
// Scenarios start them; each ends with its stdin.
package load
