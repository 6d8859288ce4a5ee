package page

import "golang.org/x/sys/unix"

// Now is the clock of all times in the page: nanoseconds since the machine
// started, the same in every process. It stands still while the machine is
// suspended (CLOCK_MONOTONIC).
func Now() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // cannot fail with this clock
	return t.Nano()
}
