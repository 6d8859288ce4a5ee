package worker

import (
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/catamount-server/catamount/parser"
)

// counters are what the server counts. All of them only grow.
type counters struct {
	accepted, acceptPauses, idleClosed                       atomic.Uint64
	bytesIn, bytesOut                                        atomic.Uint64
	gone, vanished, hijacked, panics                         atomic.Uint64
	bodyStorageErrors, expectations                          atomic.Uint64
	droppedFields, streams, spillErrors, handshakes, dropped atomic.Uint64
	timeouts                                                 [numPhases]atomic.Uint64
	writeFailures                                            [numFailures]atomic.Uint64
	parseErrors                                              [parser.NumReasons]atomic.Uint64
	shards                                                   [statShards]statShard

	overload              [numOverloads]atomic.Uint64
	handlerTimeouts       atomic.Uint64
	handedOver, takenOver atomic.Uint64
	droppedLines          atomic.Uint64
}

// Counters that move with every request are kept in several places, so that
// pool goroutines on different processors do not fight for one cache line.
const statShards = 8

type statShard struct {
	waits  [waitBuckets]atomic.Uint64
	answer [6]atomic.Uint64 // by the first digit of the status; 0: cut or hijacked
	_      [64]byte
}

// waitBuckets: bucket i counts queue waits below 1 µs × 2^i; the last one the
// rest. 2^24 µs are 16.8 s.
const waitBuckets = 26

func (c *counters) observeQueueWait(place int, nanoseconds int64) {
	bucket := bits.Len64(uint64(max(nanoseconds, 0)) / uint64(time.Microsecond))
	c.shards[place%statShards].waits[min(bucket, waitBuckets-1)].Add(1)
}

func (c *counters) countAnswer(place, status int) {
	class := status / 100
	if class >= len(c.shards[0].answer) {
		class = 0
	}
	c.shards[place%statShards].answer[class].Add(1)
}

// tally is what a place has counted since its output was last sent: so the
// requests of a pipeline share what counting costs.
type tally struct {
	inPlace uint32    // requests that followed the last one at once, without a wait
	answers [6]uint32 // see statShard
}

func (t *tally) countAnswer(status int) {
	class := status / 100
	if class >= len(t.answers) {
		class = 0
	}
	t.answers[class]++
}

// publish adds what a place has counted.
func (c *counters) publish(place int, t *tally) {
	shard := &c.shards[place%statShards]
	if t.inPlace > 0 {
		shard.waits[0].Add(uint64(t.inPlace))
		t.inPlace = 0
	}
	for class, n := range t.answers {
		if n > 0 {
			shard.answer[class].Add(uint64(n))
			t.answers[class] = 0
		}
	}
}

// Stats is a snapshot of a server. The names of the first group are Puma's.
type Stats struct {
	Backlog       int    `json:"backlog"`        // requests in the todo
	BacklogMax    int    `json:"backlog_max"`    // the most of late, see threadpool
	Running       int    `json:"running"`        // goroutines of the pool, busy or waiting
	PoolCapacity  int    `json:"pool_capacity"`  // requests that could start at once
	BusyThreads   int    `json:"busy_threads"`   // places in use, and the backlog
	MaxThreads    int    `json:"max_threads"`    // places
	RequestsCount uint64 `json:"requests_count"` // requests begun
	ReactorMax    int    `json:"reactor_max"`    // the most clients in the reactor of late

	Connections map[string]int    `json:"connections"` // now, by state (see State)
	Accepted    uint64            `json:"accepted"`
	Paused      uint64            `json:"accept_pauses"`  // accepting paused for lack of descriptors
	Statuses    map[string]uint64 `json:"statuses"`       // answers by class: "2xx"; "cut" had none, or not all of it
	Timeouts    map[string]uint64 `json:"timeouts"`       // 408s by phase: head, body
	IdleClosed  uint64            `json:"idle_closed"`    // keep-alive connections whose time was over
	ParseErrors map[string]uint64 `json:"parse_errors"`   // refused requests by reason
	WriteErrors map[string]uint64 `json:"write_failures"` // undelivered answers by cause
	Gone        uint64            `json:"gone"`           // clients that left while their request was served
	Vanished    uint64            `json:"vanished"`       // clients that left in the middle of sending a request
	Hijacked    uint64            `json:"hijacked"`
	Dropped     uint64            `json:"dropped"` // connections that failed between two requests
	Handshakes  uint64            `json:"failed_tls_handshakes"`
	HeldMemory  int64             `json:"held_memory"`  // of answers that wait for slow readers, in memory
	HeldFiles   int64             `json:"held_files"`   // and in files
	HeldBodies  int64             `json:"held_bodies"`  // of request bodies, of BodyMemoryTotal
	SpillErrors uint64            `json:"spill_errors"` // answers for which no file could be written
	Streams     uint64            `json:"streams"`      // requests whose handlers started before their bodies were here
	Panics      uint64            `json:"panics"`
	BodyErrors  uint64            `json:"body_storage_errors"` // bodies that could not be stored
	DroppedLogs uint64            `json:"dropped_log_lines"`
	// DroppedFields counts the header fields of handlers that were no fields, or
	// would have split the answer.
	DroppedFields uint64       `json:"dropped_fields"`
	BytesIn       uint64       `json:"bytes_in"`
	BytesOut      uint64       `json:"bytes_out"`
	QueueWait     []WaitBucket `json:"queue_wait"` // how long requests waited for a place

	// Overload counts the 503s for want of a place by reason: backlog, age. They
	// are in Statuses as well, but not in RequestsCount and QueueWait.
	Overload map[string]uint64 `json:"overload"`
	// HandlerTimeouts counts handlers that ran beyond HandlerTimeout.
	HandlerTimeouts uint64 `json:"handler_timeouts"`
	// HandedOver counts the connections given to siblings, TakenOver those taken
	// from them; the latter are not in Accepted.
	HandedOver uint64 `json:"handed_over"`
	TakenOver  uint64 `json:"taken_over"`
}

// WaitBucket counts the requests that waited less than Below and no less than
// the Below of the bucket before. The last bucket has no bound (0).
type WaitBucket struct {
	Below time.Duration `json:"below_ns"`
	Count uint64        `json:"count"`
}

// Stats asks the reactor for what only it knows; that takes about as long as a
// batch of events. After the server's end the connections are missing.
func (s *Server) Stats() Stats {
	pool := s.pool.Stats()
	st := s.stats.snapshot()
	st.Backlog, st.BacklogMax, st.Running = pool.Backlog, pool.BacklogMax, pool.Running
	st.PoolCapacity, st.BusyThreads, st.MaxThreads = pool.PoolCapacity, pool.Busy, pool.MaxThreads
	st.HeldMemory, st.HeldFiles, st.HeldBodies = s.heldMemory.Load(), s.heldFiles.Load(), s.blocks.used.Load()
	s.countConnections(&st)
	return st
}

// snapshot returns what is counted.
func (c *counters) snapshot() Stats {
	st := Stats{
		Accepted: c.accepted.Load(), Paused: c.acceptPauses.Load(), HandedOver: c.handedOver.Load(), TakenOver: c.takenOver.Load(),
		IdleClosed: c.idleClosed.Load(), Gone: c.gone.Load(), Vanished: c.vanished.Load(),
		Hijacked: c.hijacked.Load(), Streams: c.streams.Load(), Handshakes: c.handshakes.Load(), Dropped: c.dropped.Load(),
		SpillErrors: c.spillErrors.Load(), Panics: c.panics.Load(), BodyErrors: c.bodyStorageErrors.Load(),
		DroppedLogs: c.droppedLines.Load(), DroppedFields: c.droppedFields.Load(),
		BytesIn: c.bytesIn.Load(), BytesOut: c.bytesOut.Load(),
		Connections: make(map[string]int), Timeouts: make(map[string]uint64),
		ParseErrors: make(map[string]uint64), WriteErrors: make(map[string]uint64), Statuses: make(map[string]uint64),
		Overload: make(map[string]uint64), HandlerTimeouts: c.handlerTimeouts.Load(),
	}
	for why := range numOverloads {
		st.Overload[Overload(why).String()] = c.overload[why].Load()
	}
	for phase := range numPhases {
		st.Timeouts[Phase(phase).String()] = c.timeouts[phase].Load()
	}
	for i := range c.parseErrors {
		if n := c.parseErrors[i].Load(); n > 0 {
			st.ParseErrors[parser.Reason(i).String()] = n
		}
	}
	if n := c.expectations.Load(); n > 0 {
		st.ParseErrors["expectation"] = n
	}
	for i := range c.writeFailures {
		if n := c.writeFailures[i].Load(); n > 0 {
			st.WriteErrors[Failure(i).String()] = n
		}
	}
	c.sumShards(&st)
	return st
}

// requests is how many requests have begun.
func (c *counters) requests() (n uint64) {
	for i := range c.shards {
		for bucket := range c.shards[i].waits {
			n += c.shards[i].waits[bucket].Load()
		}
	}
	return n
}

func (c *counters) sumShards(st *Stats) {
	classes := [6]string{"cut", "1xx", "2xx", "3xx", "4xx", "5xx"}
	st.QueueWait = make([]WaitBucket, waitBuckets)
	for i := range c.shards {
		for bucket := range c.shards[i].waits {
			n := c.shards[i].waits[bucket].Load()
			st.QueueWait[bucket].Count += n
			st.RequestsCount += n
		}
		for class := range c.shards[i].answer {
			if n := c.shards[i].answer[class].Load(); n > 0 {
				st.Statuses[classes[class]] += n
			}
		}
	}
	for bucket := range waitBuckets - 1 {
		st.QueueWait[bucket].Below = time.Microsecond << bucket
	}
}

// countConnections walks the table on the reactor's goroutine: counting every
// change of state instead would cost each request four atomic operations.
func (s *Server) countConnections(st *Stats) {
	done := make(chan struct{})
	err := s.reactor.Do(func() {
		defer close(done)
		st.ReactorMax = s.reactor.SizeMax()
		s.reactor.Each(func(sl *slot, owned bool) {
			if owned {
				st.Connections[StateQueued.String()]++
			} else {
				st.Connections[sl.Value.state.String()]++
			}
		})
	})
	if err == nil {
		<-done
	}
}
