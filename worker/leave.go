package worker

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/catamount-server/catamount/internal/page"
)

// departure is how a worker leaves: it accepts nothing more, finishes what runs,
// gives its connections to siblings, and ends when nothing is left.
type departure struct {
	link      *Link
	server    *Server
	options   *ServeOptions
	heart     *heart
	terminate <-chan os.Signal
	done      <-chan struct{} // of Serve's context
	// command is what the master has wanted so far, termAt when the first SIGTERM
	// came.
	command page.Command
	termAt  time.Time
}

// cause of a departure.
type cause uint8

const (
	causeTerm   cause = iota // a SIGTERM
	causeDone                // the end of Serve's context
	causeOrphan              // the master has gone
	causeFailed              // the reactor has ended
)

// deadlineMargin is how long before the master's deadline idle clients are let
// go at the latest, so that they are not cut off.
const deadlineMargin = time.Second

// sameTerm is how long after a SIGTERM another one may be the same word of
// somebody who tells the master and its workers, all of them, to stop.
const sameTerm = time.Second

// wait returns when the worker is to leave.
func (d *departure) wait() cause {
	select {
	case <-d.terminate:
		return causeTerm
	case <-d.link.masterGone:
		return causeOrphan
	case <-d.server.finished:
		return causeFailed
	case <-d.done:
		return causeDone
	}
}

// run leaves.
func (d *departure) run(why cause) error {
	l, s, log := d.link, d.server, d.options.Logger
	l.slot.State.Store(uint32(page.Draining)) // first: siblings see it at once
	if why == causeFailed {
		err := fmt.Errorf("worker: the reactor has ended: %w", s.reactorErr)
		d.end()
		return err
	}
	command := page.Command(l.slot.Command.Load())
	d.command = command
	if why == causeTerm && d.termAt.IsZero() {
		d.termAt = time.Now()
	}
	if why == causeTerm && command == page.NoCommand {
		log.Warn("told to leave by somebody else than the master")
		_ = l.tell(KindExternalTerm, l.inheritance.Index, "")
		command = page.HandOver
	}
	streams, endStreams := context.WithTimeout(context.Background(), d.options.StreamGrace)
	defer endStreams()
	grace := context.Background()
	switch {
	case why == causeOrphan:
		log.Error("the master has gone; this worker finishes what runs and ends")
		var cancel context.CancelFunc
		grace, cancel = context.WithTimeout(grace, d.options.OrphanGrace)
		defer cancel()
		s.beginDrain(true)
	case why == causeTerm && command == page.HandOver && l.inheritance.HandOver[0] >= 0:
		s.beginHandOver(l.inheritance.HandOver[0], d.handOverUntil())
	default:
		s.beginDrain(true)
	}
	for _, f := range d.options.OnDrain {
		go f(streams)
	}
	err := d.awaitDrained(grace, streams, endStreams)
	if err != nil {
		err = fmt.Errorf("worker: %d connections and %d requests were left: %w", s.reactor.Size(), l.slot.Busy.Load(), err)
	}
	d.end()
	return err
}

// end is the last thing that a worker does.
func (d *departure) end() {
	if d.options.BeforeShutdown != nil {
		d.options.BeforeShutdown()
	}
	d.server.EndLog() // it is open if the server has not ended
	if d.heart != nil {
		d.heart.stop() // nothing comes after the last message
	}
	_ = d.link.tell(KindTerm, d.link.inheritance.Index, "")
}

// handOverUntil is when to give up handing over, on the reactor's clock.
func (d *departure) handOverUntil() int64 {
	now := d.server.reactor.Now()
	if deadline := d.link.slot.Deadline.Load(); deadline != 0 {
		return now + deadline - page.Now() - int64(deadlineMargin)
	}
	return now + int64(24*time.Hour) // handOverPatience ends it
}

// awaitDrained waits until nothing is left. Handlers have the time that the
// master gives them: it asks those that hang for their stacks before it kills.
// grace bounds it where there is no master.
func (d *departure) awaitDrained(grace, streams context.Context, endStreams func()) error {
	s := d.server
	drained, over, gone := s.drained, streams.Done(), d.link.masterGone
	var empty chan struct{} // closed when the pool has nothing left to do either
	var orphaned <-chan time.Time
	if grace.Done() != nil {
		gone = nil // its time runs already
	}
	for {
		select {
		case <-drained:
			drained, empty = nil, make(chan struct{})
			go func() {
				defer close(empty)
				_ = s.pool.Shutdown(streams) // those who have taken their connections over have until then
			}()
		case <-empty:
			return s.Shutdown(context.Background())
		case <-s.finished:
			return s.reactorErr
		case <-over:
			over = nil
			_ = s.reactor.Do(s.endStreams)
		case <-d.terminate:
			if d.isUrgent() {
				endStreams()
				_ = s.reactor.Do(s.endHandOver)
			}
		case <-gone:
			gone = nil
			orphaned = time.After(d.options.OrphanGrace)
			_ = s.reactor.Do(s.endHandOver)
		case <-orphaned:
			return d.giveUp()
		case <-grace.Done():
			return d.giveUp()
		}
	}
}

// isUrgent reports whether a SIGTERM to a worker that leaves already is to skip
// every grace. The first one after the master has said what it wants is the
// master's own, if this worker was told to leave by somebody else before.
func (d *departure) isUrgent() bool {
	before := d.command
	d.command = page.Command(d.link.slot.Command.Load())
	switch {
	case d.command == page.Hurry:
		return true
	case d.command != before:
		_ = d.server.reactor.Do(func() {
			if d.server.isToFinish() {
				d.server.endHandOver()
			}
		})
		return false
	}
	return time.Since(d.termAt) >= sameTerm
}

// giveUp ends the waiting. Connections without a request do not matter.
func (d *departure) giveUp() error {
	if d.link.slot.Busy.Load() == 0 {
		return nil
	}
	return context.DeadlineExceeded
}

// endStreams ends the contexts of requests whose answers have begun: their time
// to end by themselves is over.
func (s *Server) endStreams() {
	s.reactor.Each(func(sl *slot, owned bool) {
		if !owned {
			return
		}
		if x := sl.Value.exchange.Load(); x != nil && (x.streamed() != nil || x.response.hasBegun()) {
			x.context.cancel(context.Canceled)
		}
	})
}

// hasBegun reports whether part of the answer may have been sent. It does not
// wait for a handler that is writing: then part of it has.
func (w *response) hasBegun() bool {
	if !w.mu.TryLock() {
		return true
	}
	defer w.mu.Unlock()
	return w.begun
}

// mostBatches are more than the longest queue has (65535 connections), so that
// who connects without end does not keep the server from leaving.
const mostBatches = 1<<16/acceptBatchSize + 1

// acceptAll empties the queue of a listener.
func (s *Server) acceptAll(l *listener) {
	for range mostBatches {
		if err := l.raw.Control(l.accept); err != nil || l.failed != nil || !isReadable(l.fd) {
			return // of failures nobody is there to be told
		}
	}
}
