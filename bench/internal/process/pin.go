package process

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// Side is which processor a process runs on. With one processor all share it,
// and figures tell little.
type Side int

// The sides, in the order of the allowed processors.
const (
	ServerSide Side = iota
	LoadSide
)

// Processors lists the processors that this process may use.
func Processors() []int {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return nil
	}
	var processors []int
	for cpu := range 64 * len(set) {
		if set.IsSet(cpu) {
			processors = append(processors, cpu)
		}
	}
	return processors
}

// StartOn starts cmd on the processor of its side. Affinity belongs to threads
// and is inherited: so this thread moves, starts cmd and moves back.
func StartOn(side Side, cmd *exec.Cmd) error {
	processors := Processors()
	if int(side) >= len(processors) {
		return cmd.Start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, there unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return fmt.Errorf("sched_getaffinity: %w", err)
	}
	there.Set(processors[side])
	if err := unix.SchedSetaffinity(0, &there); err != nil {
		return fmt.Errorf("sched_setaffinity: %w", err)
	}
	return errors.Join(cmd.Start(), unix.SchedSetaffinity(0, &before))
}
