// Package server is the table of the servers that the bench compares, and the
// role in which each runs: a process of its own, pinned, with one processor,
// answering one app. Scenarios start servers with Start and ask them; the
// server's process owns whatever program it starts and ends it with itself.
// For one app every server gives the same answer, byte for byte in its body
// and Content-Type; Check proves it before anything is measured.
package server
