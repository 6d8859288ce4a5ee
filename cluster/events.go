package cluster

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/catamount-server/catamount/worker"
	"golang.org/x/sys/unix"
)

// event is something that a process of the master's has written, or the end of
// that. Either handle or task says who.
type event struct {
	handle  *WorkerHandle
	task    *task
	message worker.Message
	err     error // no message; io.EOF: its pipe is closed, and so it is dead
}

const (
	// longestLine is what a message may have, with its line feed (PIPE_BUF).
	longestLine = 4096
	// mostNonsense is how many lines that are no messages a worker may write
	// until it is taken for something else.
	mostNonsense = 10
)

func (c *Cluster) startReader(h *WorkerHandle) {
	c.read(&h.child, func(m worker.Message, err error) { c.send(event{handle: h, message: m, err: err}) })
}

// read reads what a child writes, on a goroutine that ends with its pipe.
func (c *Cluster) read(from *child, deliver func(worker.Message, error)) {
	from.readerDone = make(chan struct{})
	unread := from.unread
	from.unread = nil
	c.readers.Go(func() {
		defer close(from.readerDone)
		from.unread = readMessages(io.MultiReader(bytes.NewReader(unread), from.messages), deliver)
	})
}

// stopReader handles what of a child has been read. After that nobody reads its
// pipe.
func (c *Cluster) stopReader(from *child) {
	if file, ok := from.messages.(interface{ SetReadDeadline(time.Time) error }); ok {
		_ = file.SetReadDeadline(time.Unix(1, 0))
	}
	for {
		select {
		case e := <-c.events:
			c.handle(e)
		case <-from.readerDone:
			return
		}
	}
}

// finishReader handles all that a child has written which is dead. It is in the
// pipe by now, whose end may never come: others may hold it as well.
func (c *Cluster) finishReader(from *child, deliver func(worker.Message, error)) {
	c.stopReader(from)
	if file, ok := from.messages.(*os.File); ok {
		_ = file.SetReadDeadline(time.Time{})
		readMessages(io.MultiReader(bytes.NewReader(from.unread), inPipe{file}), deliver)
	}
}

// inPipe reads what is in a pipe, and waits for no more.
type inPipe struct{ *os.File }

func (p inPipe) Read(buffer []byte) (n int, err error) {
	raw, err := p.SyscallConn()
	if err != nil {
		return 0, err
	}
	err = raw.Read(func(fd uintptr) bool {
		n, _ = unix.Read(int(fd), buffer)
		return true
	})
	if err != nil || n <= 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (c *Cluster) send(e event) {
	select {
	case c.events <- e:
	case <-c.done:
	}
}

// readMessages reads lines until the end, which it delivers as io.EOF, or until
// it is stopped by a deadline: then it returns what it has read of a line.
func readMessages(r io.Reader, deliver func(worker.Message, error)) (unread []byte) {
	buffered := bufio.NewReaderSize(r, longestLine)
	tooLong := false
	for {
		line, err := buffered.ReadSlice('\n')
		switch {
		case err == nil && tooLong:
			tooLong = false // the rest of a line that was refused already
		case err == nil:
			deliver(worker.ParseMessage(line[:len(line)-1]))
		case errors.Is(err, bufio.ErrBufferFull):
			if !tooLong {
				deliver(worker.Message{}, fmt.Errorf("a line of more than %d bytes that begins with %.32q", longestLine, line))
			}
			tooLong = true
		case errors.Is(err, os.ErrDeadlineExceeded):
			return bytes.Clone(line)
		default:
			deliver(worker.Message{}, io.EOF)
			return nil
		}
	}
}

// handle takes one event.
func (c *Cluster) handle(e event) {
	now := time.Now()
	if e.task != nil {
		c.handleTask(e)
		return
	}
	h := e.handle
	switch {
	case errors.Is(e.err, io.EOF):
		h.closedAt = now
	case e.err != nil:
		c.refuse(h, e.err)
	case e.message.PID != h.PID:
		c.refuse(h, fmt.Errorf("a message of process %d, want %d", e.message.PID, h.PID))
	case !h.hello && e.message.Kind != worker.KindHello && e.message.Kind != worker.KindFailed:
		h.failure = fmt.Sprintf("its first message is %q, want a hello", e.message.Kind)
		c.kill(h, h.failure)
	default:
		c.message(h, e.message, now)
	}
}

// refuse notes that a worker has written something that is no message of its.
func (c *Cluster) refuse(h *WorkerHandle, err error) {
	h.nonsense++
	if h.nonsense == 1 {
		c.worker(h).Warn("a worker has written what is no message; it is ignored", "err", err)
	}
	if !h.hello || h.nonsense == mostNonsense {
		h.failure = fmt.Sprintf("it does not speak protocol %d: %v", worker.Protocol, err)
		c.kill(h, h.failure)
	}
}

func (c *Cluster) message(h *WorkerHandle, m worker.Message, now time.Time) {
	switch m.Kind {
	case worker.KindHello:
		if m.Value != worker.Protocol {
			h.failure = fmt.Sprintf("it speaks protocol %d, the master %d: a hot restart (USR2) brings both together", m.Value, worker.Protocol)
			c.kill(h, h.failure)
			return
		}
		h.hello = true
	case worker.KindBoot:
		c.workerBooted(h, now)
	case worker.KindPing:
		if h.checkin(now) {
			c.worker(h).Warn("the worker gives signs of life again")
		}
	case worker.KindExternalTerm:
		if h.stage != Terminating {
			c.worker(h).Info("the worker was told to leave by somebody else")
			c.leave(h, now)
		}
	case worker.KindTerm:
		if h.stage != Terminating {
			c.worker(h).Info("the worker leaves")
			h.deserts = h.servedFor(now) < healthyAfter
			c.leave(h, now)
		}
	case worker.KindFailed:
		h.failure = m.Text
	case worker.KindIdle:
		c.worker(h).Debug("the worker is idle", "for", m.Text)
	}
}

func (c *Cluster) workerBooted(h *WorkerHandle, now time.Time) {
	if h.stage != Started {
		return // it was told to leave meanwhile
	}
	h.enter(Booted, now)
	h.program.proven = true
	c.worker(h).Info("worker booted", "after", now.Sub(h.startedAt).Round(time.Millisecond))
}
