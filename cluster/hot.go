package cluster

import (
	"errors"

	"golang.org/x/sys/unix"
)

// StateVariable is the environment variable by which the program that ran
// before in this process leaves its state to the next one. The caller of New
// passes its value on as Options.State and takes it out of the environment.
const StateVariable = "CATAMOUNT_STATE"

func closeDescriptor(fd int) {
	if fd >= 0 {
		_ = unix.Close(fd)
	}
}

// Rollback executes the program again that has left the state.
func Rollback(state string, cause error) error { return errors.Join(cause) }

func (c *Cluster) adopt(state string) error { return errors.New("not yet") }

func (c *Cluster) handOverTo(p *program) { c.abandon(errors.New("not yet")) }

func (c *Cluster) closeOldPages() {}

func (c *Cluster) setTitle() {}
