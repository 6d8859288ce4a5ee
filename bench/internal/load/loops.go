package load

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/catamount-server/catamount/bench/internal/process"
	"github.com/catamount-server/catamount/bench/internal/stats"
	"github.com/valyala/fasthttp"
)

// LoopsRole is the role of closed loops.
const LoopsRole = "loops"

// answerTime is when an answer counts as one that does not come, unless a load
// says otherwise.
const answerTime = 10 * time.Second

// Loops are closed loops: each connection, on a goroutine of its own, sends
// its next request when it has the answer. fasthttp reads the answers.
type Loops struct {
	Addr     string
	Groups   []Group
	Duration time.Duration
	Patience time.Duration // for an answer; 0: ten seconds
}

func (l Loops) patience() time.Duration {
	if l.Patience == 0 {
		return answerTime
	}
	return l.Patience
}

// Group is a number of connections that send the same request.
type Group struct {
	Request Request
	Conns   int
}

// RunLoops runs closed loops from the load's processor, and returns a result
// for each group.
func RunLoops(l Loops) ([]Result, error) {
	child, err := process.StartRole(process.LoadSide, LoopsRole, "closed loops", l)
	if err != nil {
		return nil, err
	}
	var results []Result
	err = child.ReceiveWithin(&results, l.Duration+4*l.patience()+answerTime)
	if stopErr := child.Stop(); err == nil {
		err = stopErr
	}
	if err == nil && len(results) != len(l.Groups) {
		err = fmt.Errorf("closed loops: %d results for %d groups", len(results), len(l.Groups))
	}
	return results, err
}

// BeLoops is the body of the process.
func BeLoops(text []byte, _ io.Reader, out io.Writer) error {
	var l Loops
	if err := json.Unmarshal(text, &l); err != nil {
		return err
	}
	return process.Reply(out, l.run())
}

// run runs all loops for the duration.
func (l Loops) run() []Result {
	tallies := make([]*tally, len(l.Groups))
	batches := make([][]byte, len(l.Groups))
	for i, group := range l.Groups {
		batches[i] = bytes.Repeat(group.Request.Bytes(), group.Request.pipeline())
	}
	end := time.Now().Add(l.Duration)
	var all sync.WaitGroup
	for i, group := range l.Groups {
		tallies[i] = &tally{Result: Result{Seconds: l.Duration.Seconds(), Latencies: stats.NewLatencies()}}
		for range group.Conns {
			one := newLoop(l.Addr, batches[i], group.Request, tallies[i])
			all.Go(func() { one.run(end, l.patience()) })
		}
	}
	all.Wait()
	results := make([]Result, len(l.Groups))
	for i, t := range tallies {
		results[i] = t.Result
	}
	return results
}

// tally is shared by the loops of a group.
type tally struct {
	mu sync.Mutex
	Result
}

// errLate means that an answer did not come in time.
var errLate = errors.New("no answer in time")

// count adds the answers of a batch, with the latency of each, and the error
// that ended it.
func (t *tally) count(got answers, latency time.Duration, late bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Requests += int64(got.n)
	t.Bad += int64(got.bad)
	if late {
		t.Late += int64(got.n)
	}
	t.Latencies.Record(latency, got.n)
	switch {
	case errors.Is(err, errLate):
		t.Timeouts++
		t.Latencies.Record(latency, 1)
	case err != nil:
		t.Broken++
	}
}

// loop is one connection, and those that follow it.
type loop struct {
	addr     string
	batch    []byte
	pipeline int
	close    bool
	tally    *tally
	conn     net.Conn
	reader   *bufio.Reader
	answer   fasthttp.Response
}

func newLoop(addr string, batch []byte, r Request, t *tally) *loop {
	return &loop{addr: addr, batch: batch, pipeline: r.pipeline(), close: r.Close, tally: t, reader: bufio.NewReaderSize(nil, 16<<10)}
}

// run goes on until the end, but makes one exchange at least. What is under way
// at the end is finished, and counted as late.
func (lp *loop) run(end time.Time, patience time.Duration) {
	defer lp.hangUp()
	for start := time.Now(); ; start = time.Now() {
		got, err := lp.exchange(start.Add(patience))
		now := time.Now()
		if err != nil && now.Sub(start) >= patience {
			err = errLate // whatever the reader of answers calls it
		}
		if err != nil || lp.close {
			lp.hangUp()
		}
		lp.tally.count(got, now.Sub(start), now.After(end), err)
		if !now.Before(end) {
			return
		}
	}
}

func (lp *loop) hangUp() {
	if lp.conn != nil {
		lp.conn.Close()
		lp.conn = nil
	}
}

// answers are what came for a batch.
type answers struct {
	n   int
	bad int // of n
}

// exchange sends a batch and reads its answers. A server may close after any
// of them when it says so; the rest of the batch then has no answer, and that
// is no error.
func (lp *loop) exchange(deadline time.Time) (got answers, err error) {
	if lp.conn == nil {
		if lp.conn, err = net.DialTimeout("tcp4", lp.addr, time.Until(deadline)); err != nil {
			return got, err
		}
		lp.reader.Reset(lp.conn)
	}
	lp.conn.SetDeadline(deadline)
	if _, err := lp.conn.Write(lp.batch); err != nil {
		return got, err
	}
	for got.n < lp.pipeline {
		if err := lp.answer.Read(lp.reader); err != nil {
			return got, err
		}
		got.n++
		if lp.answer.StatusCode() != http.StatusOK {
			got.bad++
		}
		if lp.answer.ConnectionClose() {
			lp.hangUp()
			break
		}
	}
	return got, nil
}
