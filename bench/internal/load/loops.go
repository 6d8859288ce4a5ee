package load

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/catamount-server/catamount/bench/internal/process"
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
	Warmup   time.Duration // before, not counted
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
	err = child.ReceiveWithin(&results, l.Warmup+l.Duration+4*l.patience()+answerTime)
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

func (l Loops) run() []Result {
	if l.Warmup > 0 {
		l.spend(l.Warmup)
	}
	return l.spend(l.Duration)
}

// spend runs all loops for a while.
func (l Loops) spend(d time.Duration) []Result {
	results := make([]Result, len(l.Groups))
	start := time.Now()
	var all sync.WaitGroup
	for i, group := range l.Groups {
		t := &tally{latencies: histogram()}
		all.Add(group.Conns)
		for range group.Conns {
			go func() {
				defer all.Done()
				newLoop(l.Addr, group.Request, t).run(start.Add(d), l.patience())
			}()
		}
		defer func() {
			results[i] = t.Result
			results[i].Seconds = d.Seconds()
			results[i].Latency = latencyOf(t.latencies)
		}()
	}
	all.Wait()
	return results
}

// tally is shared by the loops of a group.
type tally struct {
	mu sync.Mutex
	Result
	latencies *hdrhistogram.Histogram
}

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
	t.latencies.RecordValues(min(latency.Nanoseconds(), t.latencies.HighestTrackableValue()), int64(got.n))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		t.Timeouts++
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

func newLoop(addr string, r Request, t *tally) *loop {
	lp := &loop{addr: addr, pipeline: r.pipeline(), close: r.Close, tally: t, reader: bufio.NewReaderSize(nil, 16<<10)}
	one := r.Bytes()
	for range lp.pipeline {
		lp.batch = append(lp.batch, one...)
	}
	return lp
}

// run goes on until the end. What is under way then is finished, and counted as
// late.
func (lp *loop) run(end time.Time, patience time.Duration) {
	defer lp.hangUp()
	for {
		start := time.Now()
		if !start.Before(end) {
			return
		}
		got, err := lp.exchange(start.Add(patience))
		now := time.Now()
		if err != nil || lp.close {
			lp.hangUp()
		}
		lp.tally.count(got, now.Sub(start), now.After(end), err)
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
