// Package measure reads what the kernel charges to the processes of a server,
// CPU time and memory, and what there is to know about the machine. Scenarios
// call it from outside of the server, so that it works for every program
// alike.
package measure
