package worker

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/catamount-server/catamount/internal/page"
)

// Link is a child's side of what binds it to its master: the pipe on which it
// tells, the one whose end says that the master is gone, and the shared page.
type Link struct {
	inheritance Inheritance
	pipe        *os.File
	check       *os.File
	page        *page.Page // nil when none was inherited
	slot        *page.Slot // of a worker
	title       title

	serving    atomic.Bool   // from here on the end of the master is Serve's business
	masterGone chan struct{} // closed when the master has ended
}

// pipeWait is how long the master may leave the pipe full.
const pipeWait = 2 * time.Second

// Attach is the first thing that a process with an Inheritance does. It makes
// the descriptors its own, greets the master, and watches it from then on: if
// the master ends before Serve is called, so does this process, with status 1.
// SIGQUIT makes it show all goroutines on standard error; signals that a
// terminal sends to the master's whole group are nothing to it.
//
// An error, which names the descriptor or the layout that was expected and the
// one that was found, has been told to the master if the pipe could be used. It
// wraps page.ErrLayout when the master is of another program.
func Attach(i Inheritance) (*Link, error) {
	l := &Link{inheritance: i, masterGone: make(chan struct{})}
	err := i.takeOver()
	if i.Pipe < 0 || i.Check < 0 {
		return nil, errors.Join(err, fmt.Errorf("worker: no pipe to the master (pipe %d, check %d)", i.Pipe, i.Check))
	}
	l.pipe = os.NewFile(uintptr(i.Pipe), "pipe to the master")
	l.check = os.NewFile(uintptr(i.Check), "pipe from the master")
	if tellErr := l.tell(KindHello, Protocol, ""); tellErr != nil {
		return nil, errors.Join(err, fmt.Errorf("worker: greeting the master: %w", tellErr))
	}
	if err == nil && i.Page >= 0 {
		err = l.openPage()
	}
	if err != nil {
		err = fmt.Errorf("worker: %w", err)
		l.Fail(err)
		return nil, err
	}
	l.title.init(os.Args)
	l.watchSignals()
	go l.watchMaster() // ends with the process
	return l, nil
}

func (l *Link) openPage() error {
	var err error
	if l.page, err = page.Open(l.inheritance.Page, StatsLayout()); err != nil {
		return err
	}
	if l.inheritance.Role != RoleWorker {
		return nil
	}
	if index := l.inheritance.Index; index < 0 || index >= l.page.Slots() {
		return fmt.Errorf("index %d: the page has slots 0 to %d", index, l.page.Slots()-1)
	}
	l.slot = l.page.Slot(l.inheritance.Index)
	l.resetSlot()
	return nil
}

// resetSlot takes the slot over from a predecessor, who may have been killed.
func (l *Link) resetSlot() {
	s := l.slot
	s.State.Store(uint32(page.Booting))
	for _, gauge := range []*atomic.Int64{&s.Busy, &s.Places, &s.Connections, &s.Booted} {
		gauge.Store(0)
	}
	s.Served.Store(0)
	now := page.Now()
	s.ReactorAt.Store(now)
	s.PoolAt.Store(now)
	statsIn(s).gauges.reset()
}

// watchMaster waits for the end of the pipe on which the master never writes.
func (l *Link) watchMaster() {
	_, _ = io.Copy(io.Discard, l.check) // whatever ends it, nobody is there any more
	close(l.masterGone)
	if !l.serving.Load() {
		slog.Error("the master has gone while this process was starting", "master", l.inheritance.Master)
		os.Exit(1)
	}
}

// Inheritance is what Attach was given.
func (l *Link) Inheritance() Inheritance { return l.inheritance }

// Page is the shared page; nil for a process that has inherited none.
func (l *Link) Page() *page.Page { return l.page }

// Slot is the worker's own part of the page; nil for others than workers.
func (l *Link) Slot() *page.Slot { return l.slot }

// Fail tells the master why this process cannot boot. The caller then exits
// with status 3, or the one that fits the reason.
func (l *Link) Fail(err error) {
	_ = l.tell(KindFailed, l.inheritance.Index, err.Error()) // else the exit status has to do
}

// tell writes one message. A master that is stopped is not waited for long.
func (l *Link) tell(kind Kind, value int, text string) error {
	wait := pipeWait
	if kind == KindPing {
		wait = 10 * time.Millisecond // the next one will do
	}
	_ = l.pipe.SetWriteDeadline(time.Now().Add(wait))
	_, err := l.pipe.Write(Message{Kind: kind, PID: os.Getpid(), Value: value, Text: text}.Append(nil))
	return err
}
