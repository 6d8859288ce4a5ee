// Package cluster is the master: it starts workers, watches them, and replaces
// them. It serves nothing and runs no code of the application.
package cluster
