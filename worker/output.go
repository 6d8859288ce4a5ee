package worker

import (
	"fmt"
	"io"
	"os"

	"github.com/catamount-server/catamount/reactor"
	"github.com/valyala/bytebufferpool"
)

// output is what of a connection's answers the socket has not taken: bytes in
// memory, and behind them a part of a file. It belongs to the pool place that
// serves the client, and once the handler has returned to the reactor.
type output struct {
	mem         *bytebufferpool.ByteBuffer // mem.B[off:]
	off         int
	file        segment
	pace        pace  // while the socket does not take all of it
	sent, taken int64 // bytes given to the socket since it first refused some, and taken by the client of those; see credit
	held        int64 // bytes of mem that count against OutputMemoryTotal
	failed      error // of a send whose caller could not tell anybody: the kernel reports a cause once
	blocked     bool  // the last send was refused; no use to try before Writable
	flowing     bool  // see letFlow
}

// segment is a part of a file: of one that the handler copied to its answer, or
// of our own, which keeps what is too much for memory.
type segment struct {
	file  *os.File // ours to close: for a handler's file a duplicate; nil: none
	pos   int64
	left  int64
	spill bool // our own: more may be appended
	// counted is what of an own file counts against OutputFileTotal: all of it, as
	// what has been sent takes room until the file is empty.
	counted int64
}

// fileShare is how much of a file one send takes on the reactor, where others
// wait.
const fileShare = 512 << 10

// mostOfFile is how much one sendfile(2) is asked for elsewhere: more than any
// socket takes. The kernel's own limit is a page under 2 GiB.
const mostOfFile = 1 << 30

// errFileShrank: a file that is being sent has become shorter. Only closing
// tells the client.
var errFileShrank = fmt.Errorf("catamount: the file became shorter while it was sent: %w", io.ErrUnexpectedEOF)

// Of a large file the socket may take flowNotSent instead of notSent ahead: what
// it has taken goes out as the client's acknowledgements come, without this
// process (40 % less of its CPU per byte on the loopback interface). For at most
// maxFlows connections at a time, because it is memory of the kernel's that a
// slow reader can hold.
const (
	flowFrom    = 1 << 20
	flowNotSent = 4 << 20
	maxFlows    = 64
)

// letFlow is called for an output that got a large file.
func (s *Server) letFlow(sl *slot, o *output) {
	if o.flowing {
		return
	}
	if s.flows.Add(1) > maxFlows {
		s.flows.Add(-1)
		return
	}
	o.flowing = true
	s.sockets.setNotSent(sl.FD(), flowNotSent)
}

func newOutput() output { return output{mem: outPool.Get()} }

// size is how many bytes are still to be sent.
func (o *output) size() int64 {
	if o.mem == nil {
		return 0
	}
	return int64(len(o.mem.B)-o.off) + o.file.left
}

func (o *output) isEmpty() bool { return len(o.mem.B) == o.off && o.file.left == 0 }

// tidy is for an output all of which has been sent.
func (o *output) tidy() {
	o.mem.B, o.off = o.mem.B[:0], 0
	o.blocked, o.pace, o.failed = false, pace{}, nil
	o.sent, o.taken = 0, 0
	if cap(o.mem.B) > bufferKeep {
		o.mem = outPool.Get() // a large answer does not stay with the place
	}
}

// drop forgets what could not be sent, and gives everything but the buffer back.
func (s *Server) drop(o *output) {
	o.tidy()
	s.dropFile(o)
	if o.held > 0 {
		s.heldMemory.Add(-o.held)
		o.held = 0
	}
	if o.flowing {
		s.flows.Add(-1)
		o.flowing = false
	}
}

func (s *Server) dropFile(o *output) {
	if o.file.file == nil {
		return
	}
	_ = o.file.file.Close() // only read, or unnamed
	s.heldFiles.Add(-o.file.counted)
	o.file = segment{}
}

// push gives the socket what it takes of o, and of p when nothing is left
// before it, and returns what is left of p. No more than about share bytes of
// files; when that is what ended it o is neither blocked nor empty.
func (s *Server) push(sl *slot, o *output, p []byte, share int64) ([]byte, error) {
	if o.failed != nil {
		return p, o.failed
	}
	if o.blocked {
		if sl.Seen()&(reactor.Writable|reactor.HungUp) == 0 {
			return p, nil
		}
		sl.ClearWritable()
	}
	for {
		n, err := s.pushOnce(sl, o, p, share)
		if n == 0 && err == nil { // nothing was left
			if o.flowing {
				s.sockets.setNotSent(sl.FD(), notSent)
			}
			if o.held > 0 || o.file.file != nil || o.flowing {
				s.drop(o)
			}
			o.tidy()
			return nil, nil
		}
		if err == errWouldBlock {
			if !o.blocked {
				// An edge may have come between the refusal and now: forget it
				// first, and ask once more.
				o.blocked = true
				s.credit(sl, o)
				sl.ClearWritable()
				continue
			}
			return p, nil
		}
		if err != nil {
			return p, err
		}
		o.blocked = false
		o.sent += int64(n)
		s.stats.bytesOut.Add(uint64(n))
		if inMemory := len(o.mem.B) - o.off; inMemory > 0 {
			o.off += min(n, inMemory)
			p = p[max(n-inMemory, 0):]
		} else if o.file.left > 0 {
			o.file.pos += int64(n)
			o.file.left -= int64(n)
			if share -= int64(n); share <= 0 && o.file.left > 0 {
				return p, nil
			}
		} else {
			p = p[n:]
		}
	}
}

// credit works out anew when the client is too slow, by what it has taken:
// acknowledged, that is. What the socket has taken would not do: with its buffer
// at the 4 MiB that Linux may give it, it reports room after a third of that, and
// a client that reads 50 kB a second needs half a minute for so much.
func (s *Server) credit(sl *slot, o *output) {
	taken := o.sent - s.sockets.unsent(sl.FD())
	if o.pace.due != 0 {
		o.pace.bytes += max(taken-o.taken, 0)
	}
	o.taken = taken
	t := &s.options.Timeouts
	o.pace.update(max(s.reactor.Now(), 1), t.WriteMinRate, t.WriteGrace)
}

// stillTakes is asked when a client seems to be too slow: it may have taken
// bytes without the socket having room enough to say so.
func (s *Server) stillTakes(sl *slot, o *output) bool {
	if o.pace.due == 0 {
		return false
	}
	s.credit(sl, o)
	return o.pace.due > s.reactor.Now()
}

// pushOnce makes one system call, with no more than share bytes of a file. It
// returns 0 and no error when there is nothing to send.
func (s *Server) pushOnce(sl *slot, o *output, p []byte, share int64) (int, error) {
	mem := o.mem.B[o.off:]
	switch {
	case o.file.left == 0 && len(mem)+len(p) == 0:
		return 0, nil
	case o.file.left == 0:
		return s.sockets.send(sl.FD(), mem, p)
	case len(mem) > 0:
		return s.sockets.send(sl.FD(), mem, nil)
	}
	n, err := s.sockets.sendFile(sl.FD(), int(o.file.file.Fd()), o.file.pos, min(o.file.left, share, mostOfFile))
	if n == 0 && err == nil {
		return 0, errFileShrank
	}
	return n, err
}

// keep takes p in, which the socket has refused: in memory, or in a file. False:
// there is no room, or something would have to be put behind a handler's file.
func (s *Server) keep(o *output, p []byte) bool {
	if o.file.left == 0 {
		if size := len(o.mem.B) - o.off + len(p); size <= s.options.OutputMemory && s.hold(o, size) {
			o.compact()
			o.mem.B = append(o.mem.B, p...)
			return true
		}
	}
	return s.spill(o, p)
}

// compact moves the unsent bytes to the front when that is cheap.
func (o *output) compact() {
	if o.off > 0 && o.off >= len(o.mem.B)/2 {
		o.mem.B = o.mem.B[:copy(o.mem.B, o.mem.B[o.off:])]
		o.off = 0
	}
}

// hold counts so many bytes in memory as this output's; false when all outputs
// together would have too many.
func (s *Server) hold(o *output, size int) bool {
	more := int64(size) - o.held
	if s.heldMemory.Add(more) > s.options.OutputMemoryTotal && more > 0 {
		s.heldMemory.Add(-more)
		return false
	}
	o.held = int64(size)
	return true
}

// spill appends p to a file of our own. When memory is short altogether, what is
// there goes first.
func (s *Server) spill(o *output, p []byte) bool {
	if s.options.OutputFile <= 0 || o.file.left > 0 && !o.file.spill {
		return false
	}
	if o.file.file != nil && o.file.left == 0 {
		s.dropFile(o) // what was in it has been sent
	}
	var mem []byte
	if o.file.file == nil && s.heldMemory.Load()-o.held+int64(len(o.mem.B)-o.off) > s.options.OutputMemoryTotal {
		mem = o.mem.B[o.off:]
	}
	end, more := o.file.pos+o.file.left, int64(len(mem)+len(p))
	if end+more > s.options.OutputFile {
		return false
	}
	if s.heldFiles.Add(more) > s.options.OutputFileTotal {
		s.heldFiles.Add(-more)
		return false
	}
	if err := o.file.write(end, mem, p, s.options.bodyDirectory()); err != nil {
		s.heldFiles.Add(-more)
		s.stats.spillErrors.Add(1)
		s.log.error(limitKey{event: "output storage"}, "no file for an answer that its client reads slowly; its handler waits instead", "err", err)
		return false
	}
	o.file.counted += more
	if len(mem) > 0 {
		o.mem.B, o.off = o.mem.B[:0], 0
		s.heldMemory.Add(-o.held)
		o.held = 0
	}
	return true
}

// write appends to the file, which is made when there is none.
func (f *segment) write(end int64, a, b []byte, directory string) error {
	file := f.file
	if file == nil {
		var err error
		if file, err = bodyFile(directory); err != nil {
			return err
		}
	}
	for _, p := range [2][]byte{a, b} {
		if _, err := file.WriteAt(p, end); err != nil {
			if f.file == nil {
				file.Close()
			}
			return err
		}
		end += int64(len(p))
	}
	f.file, f.spill = file, true
	f.left = end - f.pos
	return nil
}
