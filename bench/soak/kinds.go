package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// A kind is a group of clients that do the same.
type kind struct {
	name    string
	clients int
	be      func(*client) // one visit; a client pays one after another
}

var allKinds = []kind{
	{"good", 24, beGood},
	{"half-closing", 4, beHalfClosing},
	{"uploading", 3, beUploading},
	{"websocket", 8, beWebSocket},
	{"trickling", 24, beTrickling},
	{"slow reading", 6, beSlowReading},
	{"stalling", 2, beStalling},
	{"idle", 16, beIdle},
	{"crossing", 8, beCrossing},
	{"broken", 6, beBroken},
	{"vanishing", 10, beVanishing},
	{"panicking", 3, bePanicking},
}

// choose returns the kinds with these names.
func choose(names string) (kinds []kind, err error) {
	if names == "" {
		return allKinds, nil
	}
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(allKinds, func(k kind) bool { return k.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-kinds: there is no %q", name)
		}
		kinds = append(kinds, allKinds[i])
	}
	return kinds, nil
}

// progressEvery is how often a line tells of the run.
const progressEvery = 10 * time.Second

// failurePause is how long a client rests after something unexpected.
const failurePause = 100 * time.Millisecond

// endTime is how long the clients may take to finish what they began.
const endTime = 3 * patience

// traffic is all the clients of a run.
type traffic struct {
	settings settings
	target   string
	out      io.Writer
	tallies  []*tally // by kind
	watch    *watch
	began    time.Time
}

func newTraffic(s settings, target string, out io.Writer) *traffic {
	t := &traffic{settings: s, target: target, out: out, watch: newWatch()}
	shared := &synchronized{out: out}
	for range s.kinds {
		tally := &tally{}
		if s.verbose {
			tally.verbose = shared
		}
		t.tallies = append(t.tallies, tally)
	}
	return t
}

// run lets the clients loose, and returns when all of them have left. The error
// is that the server's process ended, or that clients did not.
func (t *traffic) run(server *serverProcess) error {
	running, end := context.WithTimeout(context.Background(), t.settings.duration)
	defer end()
	t.began = time.Now()
	watching, unwatch := context.WithCancel(context.Background())
	defer unwatch()
	go t.watch.run(watching, nil)
	var clients sync.WaitGroup
	for i, k := range t.settings.kinds {
		for n := range k.clients * t.settings.scale {
			c := &client{
				name:    fmt.Sprintf("%s-%d", strings.ReplaceAll(k.name, " ", "-"), n),
				random:  rand.New(rand.NewPCG(t.settings.seed, uint64(i)<<32|uint64(n))),
				running: running,
				target:  t.target,
				source:  net.IPv4(127, 0, byte(1+i), byte(1+n%250)),
				tally:   t.tallies[i],
				watch:   t.watch,
			}
			clients.Go(func() {
				c.pace(c.between(0, time.Second/2)) // not all at once
				for !c.over() {
					k.be(c)
					if c.failed { // again, perhaps: not thousands of times a second
						c.failed = false
						c.pace(failurePause)
					}
				}
			})
		}
	}
	left := make(chan struct{})
	go func() {
		clients.Wait()
		close(left)
	}()
	late := time.NewTimer(t.settings.duration + endTime)
	defer late.Stop()
	progress := time.NewTicker(progressEvery)
	defer progress.Stop()
	for {
		select {
		case <-left:
			return nil
		case <-late.C:
			return errors.New("clients that do not come to an end")
		case <-progress.C:
			if err := t.tell(server); err != nil {
				return err
			}
		}
	}
}

// tell prints a line about the run.
func (t *traffic) tell(server *serverProcess) error {
	now, err := server.ask("look")
	if err != nil {
		return err
	}
	var done, refused, unexpected int
	for _, tally := range t.tallies {
		tally.mu.Lock()
		done, refused, unexpected = done+tally.done, refused+tally.refused, unexpected+tally.unexpected
		tally.mu.Unlock()
	}
	fmt.Fprintf(t.out, "%4.0f s: %d done, %d refused, %d unexpected; server: %d requests, %d connections, %d+%d goroutines, %d descriptors, %d body files, heap %s, resident %s\n",
		time.Since(t.began).Seconds(), done, refused, unexpected, now.Stats.RequestsCount, total(now.Stats.Connections),
		total(now.Goroutines), now.Resting, total(now.Descriptors), len(now.BodyFiles), megabytes(now.Heap), megabytes(now.RSS))
	return nil
}

// print prints what became of the clients.
func (t *traffic) print(out io.Writer) {
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "clients\tdone\trefused as expected\tcut short by the end\texcused\tunexpected\tanswers: 99 % below\tslowest\t")
	for i, k := range t.settings.kinds {
		tally := t.tallies[i]
		percentile, slowest := tally.times()
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t\n", k.name, tally.done, tally.refused, tally.cutShort, tally.excused, tally.unexpected, percentile, slowest)
	}
	_ = table.Flush()
	if stalls, longest := t.watch.sum(); stalls > 0 {
		fmt.Fprintf(out, "This process got no processor for %v or more %d times, up to %v: what then came too late is excused.\n", stallLimit, stalls, longest.Round(time.Millisecond))
	}
}

// faults lists what was unexpected, and kinds that did nothing.
func (t *traffic) faults() (list []string) {
	for i, k := range t.settings.kinds {
		tally := t.tallies[i]
		if tally.unexpected > 0 {
			list = append(list, fmt.Sprintf("%s: %d unexpected, %d of them lost requests; the first ones:", k.name, tally.unexpected, tally.lost))
			for _, text := range tally.first {
				list = append(list, "  "+text)
			}
		}
		if tally.done+tally.refused+tally.cutShort+tally.unexpected == 0 {
			list = append(list, k.name+": did nothing")
		}
	}
	return list
}

// warmUp lets the server do a little of everything once, so that what it then
// keeps is not taken for a leak. It returns what went wrong.
func warmUp(target string) []string {
	running, end := context.WithCancel(context.Background())
	end() // visits are short when the traffic is over
	watching, unwatch := context.WithCancel(context.Background())
	defer unwatch()
	c := &client{name: "first", random: rand.New(rand.NewPCG(1, 1)), running: running, target: target, source: net.IPv4(127, 0, 0, 1), tally: &tally{}, watch: newWatch()}
	go c.watch.run(watching, nil)
	for _, be := range []func(*client){beGood, beUploading, beWebSocket, beBroken, bePanicking, beHalfClosing} {
		be(c)
	}
	return c.tally.first
}
