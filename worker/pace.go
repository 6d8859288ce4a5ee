package worker

import (
	"math"
	"time"
)

// pace holds a client to a minimum rate: it may be behind by so much time (the
// grace) and no more. Each byte is worth its share of a second, and what it has
// saved up beyond the grace is lost: otherwise a client that took a gigabyte fast
// could stall for weeks.
type pace struct {
	due   int64 // when the client is too slow, on the reactor's clock; 0: not waiting
	bytes int64 // taken since due was worked out
}

// update works out anew when the client is too slow. now is never 0.
func (p *pace) update(now int64, rate int, grace time.Duration) {
	if p.due == 0 {
		p.due = now + int64(grace)
	} else {
		p.due = min(p.due+timeFor(p.bytes, rate), now+int64(grace))
	}
	p.bytes = 0
}

// deadline is when the client is too slow, if there is a rate at all.
func (p *pace) deadline(rate int) int64 {
	if rate <= 0 || p.due == 0 {
		return math.MaxInt64
	}
	return p.due
}

// timeFor is how long so many bytes take at a rate of bytes per second, in
// nanoseconds. Multiplying first would overflow at 9 GB; more than a century is
// as good as one.
func timeFor(bytes int64, rate int) int64 {
	const century = 100 * 365 * 24 * 3600
	if rate <= 0 {
		return 0
	}
	r := int64(rate)
	if bytes/r > century {
		return century * int64(time.Second)
	}
	return bytes/r*int64(time.Second) + bytes%r*int64(time.Second)/r
}
