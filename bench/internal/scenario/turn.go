package scenario

import (
	"fmt"
	"time"

	"github.com/catamount-server/catamount/bench/internal/load"
	"github.com/catamount-server/catamount/bench/internal/measure"
	"github.com/catamount-server/catamount/bench/internal/process"
	"github.com/catamount-server/catamount/bench/internal/server"
)

// connections of the ordinary load.
const connections = 64

// defaultWorkers of a cluster.
const defaultWorkers = 2

// pumaThreads is Puma's default: more take the interpreter's lock from each
// other.
const pumaThreads = 5

// startChecked starts the turn's server with an app whose answer to a plain GET
// is right.
func (t *turn) startChecked(app string, threads int) (*server.Running, error) {
	r, err := t.start(app, threads)
	if err != nil {
		return nil, err
	}
	if _, err := check(r, app, load.Request{}); err != nil {
		r.Stop()
		return nil, err
	}
	return r, nil
}

// start starts the turn's server with an app. Threads 0 is room for all
// connections of the ordinary load, and Puma's default for Puma.
func (t *turn) start(app string, threads int) (*server.Running, error) {
	if threads == 0 {
		threads = 2 * connections
		if t.server.Name == "puma" {
			threads = pumaThreads
		}
	}
	workers := t.workers
	if workers == 0 {
		workers = defaultWorkers
	}
	return server.Start(server.Spec{Server: t.server.Name, App: app, Threads: threads, Workers: workers, Directory: t.Directory})
}

// check proves that the server answers as the app should, and returns the
// answer's size on the wire.
func check(r *server.Running, app string, request load.Request) (size int, err error) {
	method := "GET"
	if request.Body > 0 {
		method = "POST"
	}
	answer, err := r.Exchange(request.Bytes(), method)
	if err != nil {
		return 0, err
	}
	return answer.Size, answer.Check(app, request.Path, request.Body)
}

// warmupTime is what a server is loaded before it is measured.
func (t *turn) warmupTime() time.Duration {
	if t.Quick {
		return 50 * time.Millisecond
	}
	return 200 * time.Millisecond
}

// closedLoad runs the ordinary load with wrk where it is installed.
func (t *turn) closedLoad(addr string, request load.Request, conns int) (load.Result, error) {
	if t.Wrk && !t.Quick {
		return load.Wrk{Directory: t.Directory}.Run(addr, request, conns, t.Duration)
	}
	return t.loops(addr, request, conns)
}

// loops are for requests so large that it matters that those which are under way
// at the end are counted too: wrk does not.
func (t *turn) loops(addr string, request load.Request, conns int) (load.Result, error) {
	results, err := load.RunLoops(load.Loops{Addr: addr, Groups: []load.Group{{Request: request, Conns: conns}}, Duration: t.Duration})
	if err != nil {
		return load.Result{}, err
	}
	return results[0], nil
}

// loader makes the load of a measurement.
type loader func(t *turn, addr string, request load.Request, conns int) (load.Result, error)

// moment is what the kernel has charged until then.
type moment struct {
	at     time.Time
	server measure.Usage
	busy   time.Duration // of the servers' processor
}

func momentOf(r *server.Running) (m moment, err error) {
	if m.server, err = r.Usage(); err != nil {
		return m, err
	}
	m.busy, err = measure.BusyTime(process.Processors()[process.ServerSide])
	m.at = time.Now()
	return m, err
}

// charged runs a load and returns what it cost the server.
func charged(r *server.Running, run func() (load.Result, error)) (Values, load.Result, error) {
	before, err := momentOf(r)
	if err != nil {
		return nil, load.Result{}, err
	}
	result, err := run()
	if err != nil {
		return nil, result, err
	}
	after, err := momentOf(r)
	if err != nil {
		return nil, result, err
	}
	if ended := after.server.Without(before.server); len(ended) > 0 {
		return nil, result, fmt.Errorf("processes %v of the server ended meanwhile, and their CPU time with them", ended)
	}
	memory, err := r.Memory()
	if err != nil {
		return nil, result, err
	}
	return costs(before, after, result, memory), result, nil
}

// Others is the key of how much of the servers' processor other programs had,
// in percent: what a report says of how quiet the machine was.
const Others = "others"

func costs(before, after moment, result load.Result, memory measure.Memory) Values {
	used, took := after.server.Sub(before.server), after.at.Sub(before.at)
	per := func(d time.Duration) float64 {
		return float64(d.Nanoseconds()) / 1e3 / float64(max(result.Requests, 1))
	}
	percent := func(d time.Duration) float64 { return 100 * float64(d) / float64(took) }
	return Values{
		"cpu": per(used.Total), "user": per(used.User), "system": per(used.System),
		"rate": result.Rate(), "busy": percent(used.Total), "memory": float64(memory.PSS) / (1 << 20),
		Others: max(percent(after.busy-before.busy-used.Total), 0),
	}
}

// costColumns are those of costs.
var costColumns = []Column{
	{Key: "cpu", Title: "CPU per request", Unit: "µs", Digits: 2},
	{Key: "user", Title: "user", Unit: "µs", Digits: 2},
	{Key: "system", Title: "system", Unit: "µs", Digits: 2},
	{Key: "rate", Title: "requests/s", Digits: 0, MoreIsBetter: true},
	{Key: "busy", Title: "busy", Unit: "%", Digits: 0},
	{Key: "memory", Title: "PSS", Unit: "MiB", Digits: 1},
}

// throughput measures what a request costs under the ordinary load.
func throughput(app string, request load.Request, conns int) func(*turn) (Values, error) {
	return throughputBy((*turn).closedLoad, app, request, conns)
}

func throughputBy(run loader, app string, request load.Request, conns int) func(*turn) (Values, error) {
	return func(t *turn) (Values, error) {
		r, err := t.start(app, 0)
		if err != nil {
			return nil, err
		}
		defer r.Stop()
		single := request
		single.Pipeline = 1
		if _, err := check(r, app, single); err != nil {
			return nil, err
		}
		warmup := load.Loops{Addr: r.Addr, Groups: []load.Group{{Request: request, Conns: conns}}, Duration: t.warmupTime()}
		if _, err := load.RunLoops(warmup); err != nil {
			return nil, fmt.Errorf("warm-up: %w", err)
		}
		values, result, err := charged(r, func() (load.Result, error) { return run(t, r.Addr, request, conns) })
		if err != nil {
			return nil, err
		}
		return values, result.Clean()
	}
}
