package worker

import (
	"io"
	"io/fs"
	"net/http"
	"os"
	"syscall"
)

// fileCopyLimit is the size up to which a file is read and sent together with
// the head: one system call and one packet less than sendfile.
const fileCopyLimit = 32 << 10

// ReadFrom implements io.ReaderFrom: io.Copy, http.ServeContent and
// http.FileServer end up here. A file goes to the socket by sendfile; what the
// socket does not take is sent by the reactor, from a descriptor of its own,
// while the handler returns. So n may count bytes that are still to be sent, and
// the file must not be overwritten in place right after.
func (w *response) ReadFrom(src io.Reader) (n int64, err error) {
	if file, limited := fileOf(src); file != nil {
		n, done, err := w.sendFile(file, limited)
		if done || err != nil {
			return n, err
		}
		more, err := w.copyFrom(src)
		return n + more, err
	}
	return w.copyFrom(src)
}

func (w *response) copyFrom(src io.Reader) (int64, error) {
	buffer := takeWhole(&copyPool, fileCopyLimit)
	defer putWhole(&copyPool, buffer)
	return io.CopyBuffer(writerOnly{w}, readerOnly{src}, buffer.B)
}

// writerOnly and readerOnly hide ReadFrom and WriteTo, which would call each
// other.
type (
	writerOnly struct{ io.Writer }
	readerOnly struct{ io.Reader }
)

// file is an *os.File, or what os.File.WriteTo passes on, which is of an
// unexported type.
type file interface {
	fs.File
	io.Seeker
	syscall.Conn
}

func fileOf(src io.Reader) (file, *io.LimitedReader) {
	limited, ok := src.(*io.LimitedReader)
	if ok {
		src = limited.R
	}
	f, _ := src.(file)
	return f, limited
}

// sendFile sends what src stands for, when that is worth while and the answer's
// framing allows it. It returns false when the rest is to be copied.
func (w *response) sendFile(f file, limited *io.LimitedReader) (n int64, done bool, err error) {
	pos, size := extent(f)
	if limited != nil {
		size = min(size, limited.N)
	}
	if size <= fileCopyLimit {
		return 0, false, nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.beforeBody(0); err != nil {
		return 0, false, err
	}
	if w.noBody {
		return 0, false, http.ErrBodyNotAllowed
	}
	if w.declared >= 0 && !w.fits(size) {
		return 0, false, nil // Write knows what to do about it
	}
	if !w.composed {
		w.compose(false, w.firstBytes(f, pos))
	}
	if w.chunked {
		return 0, false, nil
	}
	if w.isHead {
		w.emitHeld()
		w.written += size
	} else {
		own, err := duplicateOf(f)
		if err != nil {
			return 0, false, nil // out of descriptors, as a rule: copying needs none
		}
		w.emitHeld()
		if err := w.x.server.sendFileWhileServing(w, segment{file: own, pos: pos, left: size}); err != nil {
			return 0, false, err
		}
	}
	if limited != nil {
		limited.N -= size
	}
	_, err = f.Seek(size, io.SeekCurrent)
	return size, true, err
}

// extent is where a regular file is to be read, and how much of it there is.
func extent(f file) (pos, size int64) {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return 0, 0
	}
	if pos, err = f.Seek(0, io.SeekCurrent); err != nil {
		return 0, 0
	}
	return pos, info.Size() - pos
}

// firstBytes is what the content type is recognised by.
func (w *response) firstBytes(f file, pos int64) []byte {
	if at, ok := f.(io.ReaderAt); ok && !w.userType && !w.userEncoding {
		first := make([]byte, sniffLength)
		n, _ := at.ReadAt(first, pos)
		return first[:n]
	}
	return nil
}

// duplicateOf returns a descriptor of our own for a handler's file.
func duplicateOf(f file) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	return duplicateFile(raw)
}

// sendFileWhileServing sends a part of a file, which it takes. What the socket
// does not take is left to the reactor.
func (s *Server) sendFileWhileServing(w *response, part segment) error {
	if err := s.sendBefore(w); err != nil {
		_ = part.file.Close() // only read
		return err
	}
	sc, sl := w.scratch, w.x.slot
	w.written += part.left
	sc.out.file = part
	w.afterFile = true
	if part.left >= flowFrom {
		s.letFlow(sl, &sc.out)
	}
	if _, err := s.push(sl, &sc.out, nil, part.left+1); err != nil {
		return s.writeFailed(sc, w, err)
	}
	s.leaveToReactor(sl, sc)
	return nil
}

// sendBefore makes room for a file, or for what follows one: a connection has
// one at a time.
func (s *Server) sendBefore(w *response) error {
	if err := s.joinWaiting(w.scratch, w); err != nil {
		return err
	}
	if w.scratch.out.file.left > 0 {
		return s.sendFinished(w)
	}
	s.settleLoan(w.scratch)
	if w.isPastDeadline() {
		return s.writeFailed(w.scratch, w, os.ErrDeadlineExceeded)
	}
	s.dropFile(&w.scratch.out)
	return nil
}
