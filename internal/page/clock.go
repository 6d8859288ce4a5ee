package page

import (
	"time"

	"golang.org/x/sys/unix"
)

// Now is the clock of all times in the page: nanoseconds since the machine
// started, the same in every process to within some microseconds. It stands
// still while the machine is suspended (CLOCK_MONOTONIC). In a synctest bubble
// it is the bubble's clock, from another start.
func Now() int64 { return origin.nano + int64(time.Since(origin.time)) }

// origin ties the runtime's clock, which is the same one, to what the kernel
// calls it: the runtime reads it without a system call, seven times as fast,
// but only tells differences.
var origin = measureOrigin()

type clockOrigin struct {
	time time.Time
	nano int64
}

// measureOrigin reads both clocks at the same moment: of some attempts, the one
// that was least interrupted.
func measureOrigin() (best clockOrigin) {
	least := time.Duration(-1)
	for range 3 {
		before := time.Now()
		nano := monotonic()
		after := time.Now()
		if took := after.Sub(before); least < 0 || took < least {
			least = took
			best = clockOrigin{before.Add(took / 2), nano}
		}
	}
	return best
}

func monotonic() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // cannot fail with this clock
	return t.Nano()
}
