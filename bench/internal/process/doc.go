// Package process runs the bench's other processes: this program again in a
// role (a server, a load, a crowd of clients), or any command, pinned to its
// side's processor. The scenarios start them and own them; a child in a role
// ends with its stdin, and so with its parent, so that nothing is left behind
// however a run ends.
package process
