package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/catamount-server/catamount"
)

const (
	// heapTolerance is how much more heap may be in use after the traffic: pools
	// of buffers keep some, and spans are not full.
	heapTolerance = 8 << 20
	// spareGoroutines is how many more goroutines may rest in the pool than it
	// has places: its trim ends them.
	spareGoroutines = 8
)

// report compares the server at rest after the traffic with the server before.
type report struct {
	before, after, shutdown *snapshot
	early                   bool // while waiting for rest: no collection was made
	faults                  []string
}

func (r *report) fault(format string, args ...any) {
	r.faults = append(r.faults, fmt.Sprintf(format, args...))
}

// judge lists everything that is not as before, or does not add up.
func (r *report) judge() {
	now := r.after
	st := &now.Stats
	if n := total(st.Connections); n > 0 {
		r.fault("connections are left: %v", st.Connections)
	}
	if st.Backlog != 0 || st.BusyThreads != 0 {
		r.fault("the pool is busy: backlog %d, busy threads %d", st.Backlog, st.BusyThreads)
	}
	if now.App.Sockets != 0 {
		r.fault("%d WebSocket handlers are left", now.App.Sockets)
	}
	r.compare("goroutines", r.before.Goroutines, now.Goroutines)
	if most := maxThreads + spareGoroutines; now.Resting > most {
		r.fault("%d goroutines rest in the pool, want at most %d", now.Resting, most)
	}
	r.compare("descriptors", r.before.Descriptors, now.Descriptors)
	if len(now.BodyFiles) > 0 {
		r.fault("files of bodies or answers are left: %q", now.BodyFiles[:min(len(now.BodyFiles), 5)])
	}
	r.judgeFigures()
	if r.early {
		return
	}
	if grown := int64(now.Heap) - int64(r.before.Heap); grown > heapTolerance {
		r.fault("heap in use has grown by %s, want at most %s", megabytes(uint64(grown)), megabytes(heapTolerance))
	}
	for _, line := range slices.Sorted(maps.Keys(now.Log)) {
		if strings.HasPrefix(line, "ERROR") && line != "ERROR handler panicked" {
			r.fault("the server logged an error, %d times: %s", now.Log[line], strings.TrimPrefix(line, "ERROR "))
		}
	}
}

// judgeFigures checks what has to add up once nothing is under way.
func (r *report) judgeFigures() {
	st, app := &r.after.Stats, &r.after.App
	if sum := total(st.Statuses) + st.Hijacked; st.RequestsCount != sum {
		r.fault("%d requests were begun, but %d were answered, cut or hijacked", st.RequestsCount, sum)
	}
	if st.RequestsCount != uint64(app.Calls) {
		r.fault("%d requests were begun, but handlers were called %d times", st.RequestsCount, app.Calls)
	}
	if st.Panics != uint64(app.Panics) {
		r.fault("%d panics were counted, but handlers caused %d", st.Panics, app.Panics)
	}
	if app.LateTaken > 0 {
		r.fault("%d of %d late uses of an answer were no error", app.LateTaken, app.Late)
	}
	if st.BodyErrors > 0 || st.SpillErrors > 0 || st.Paused > 0 {
		r.fault("%d bodies and %d answers could not be stored, accepting paused %d times", st.BodyErrors, st.SpillErrors, st.Paused)
	}
	if st.HeldMemory != 0 || st.HeldFiles != 0 {
		r.fault("answers still count for %d bytes in memory and %d in files", st.HeldMemory, st.HeldFiles)
	}
	if st.HeldBodies != 0 {
		r.fault("bodies still count for %d bytes in memory", st.HeldBodies)
	}
}

// compare lists of what there is more than before.
func (r *report) compare(what string, before, after map[string]int) {
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if more := after[name] - before[name]; more > 0 {
			r.fault("%s: %d more than before: %s", what, more, name)
		}
	}
}

// judgeShutdown: after the server's end there is nothing left of it.
func (r *report) judgeShutdown() {
	now := r.shutdown
	if n := total(now.Goroutines) + now.Resting; n > now.Own {
		r.fault("after the shutdown there are %d goroutines, without a server there were %d: %v", n, now.Own, now.Goroutines)
	}
}

func (r *report) print(out io.Writer) {
	fmt.Fprintln(out)
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "server at rest\tbefore\tafter\tafter its shutdown\t")
	row := func(name string, value func(*snapshot) any) {
		fmt.Fprintf(table, "%s\t%v\t%v\t%v\t\n", name, value(r.before), value(r.after), value(r.shutdown))
	}
	row("goroutines", func(s *snapshot) any { return total(s.Goroutines) })
	row("resting in the pool", func(s *snapshot) any { return s.Resting })
	row("descriptors", func(s *snapshot) any { return total(s.Descriptors) })
	row("files of bodies and answers", func(s *snapshot) any { return len(s.BodyFiles) })
	row("heap in use", func(s *snapshot) any { return megabytes(s.Heap) })
	row("of it in objects", func(s *snapshot) any { return megabytes(s.Live) })
	row("resident", func(s *snapshot) any { return megabytes(s.RSS) })
	row("longest without a processor", func(s *snapshot) any { return s.Stall.Round(time.Millisecond) })
	row("reactor's slowest answer", func(s *snapshot) any { return s.Reactor.Round(time.Millisecond) })
	_ = table.Flush()
	printStats(out, r.after)
}

// printStats prints all figures of the server that are not 0.
func printStats(out io.Writer, s *snapshot) {
	st := &s.Stats
	fmt.Fprintln(out)
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	row := func(name string, n uint64) {
		if n > 0 {
			fmt.Fprintf(table, "%s\t%d\n", name, n)
		}
	}
	group := func(name string, counts map[string]uint64) {
		for _, key := range slices.Sorted(maps.Keys(counts)) {
			row(name+" "+key, counts[key])
		}
	}
	row("accepted", st.Accepted)
	row("requests", st.RequestsCount)
	group("answers", st.Statuses)
	group("timeouts", st.Timeouts)
	group("parse errors", st.ParseErrors)
	group("write failures", st.WriteErrors)
	row("idle closed", st.IdleClosed)
	row("gone while served", st.Gone)
	row("vanished while sending", st.Vanished)
	row("hijacked", st.Hijacked)
	row("bodies read as they came", st.Streams)
	row("answers told as undelivered", uint64(s.App.Undelivered))
	row("panics", st.Panics)
	row("backlog, most of late", uint64(st.BacklogMax))
	row("clients, most of late", uint64(st.ReactorMax))
	row("dropped log lines", st.DroppedLogs)
	row("bytes in", st.BytesIn)
	row("bytes out", st.BytesOut)
	row("late writes refused", uint64(s.App.Late-s.App.LateTaken))
	row("handlers that saw their client leave", uint64(s.App.SawGone))
	for _, line := range slices.Sorted(maps.Keys(s.Log)) {
		row("log: "+line, uint64(s.Log[line]))
	}
	fmt.Fprintf(table, "waited for a place\t50 %% below %v, 99 %% below %v, all below %v\n",
		waitBelow(st.QueueWait, 0.5), waitBelow(st.QueueWait, 0.99), waitBelow(st.QueueWait, 1))
	_ = table.Flush()
}

// waitBelow is the bound below which a share of the requests waited.
func waitBelow(buckets []catamount.WaitBucket, share float64) time.Duration {
	var all, sum uint64
	for _, b := range buckets {
		all += b.Count
	}
	for _, b := range buckets {
		if sum += b.Count; float64(sum) >= share*float64(all) {
			return b.Below
		}
	}
	return 0
}

func megabytes(n uint64) string { return fmt.Sprintf("%.1f MB", float64(n)/(1<<20)) }
