package load

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/catamount-server/catamount/bench/internal/process"
	"golang.org/x/sys/unix"
)

// CrowdRole is the role of a crowd.
const CrowdRole = "crowd"

// Kind is what the clients of a crowd do.
type Kind string

// The kinds.
const (
	Idle    Kind = "idle"    // are served one request and then rest
	Gone    Kind = "gone"    // the same, but leave after their request
	Waiting Kind = "waiting" // send a request and wait for its answer, without end
	Heads   Kind = "heads"   // send a head, a byte a second
	Bodies  Kind = "bodies"  // send a body, a byte a second
	Readers Kind = "readers" // read their answer, 1 KiB a second
)

// Crowd is a number of clients of one kind, in a process of their own so that
// they do not disturb what they measure.
type Crowd struct {
	Kind Kind
	Addr string
	Path string // of Waiting and Readers
	N    int
}

// CrowdState is what a crowd tells about itself.
type CrowdState struct {
	Alive  int           // connections
	Closed int           // connections that the server has closed
	CPU    time.Duration // that the crowd itself has used
}

// StartCrowd starts a crowd and returns its state once all have begun, or have
// had time to.
func StartCrowd(c Crowd) (*process.Child, CrowdState, error) {
	var state CrowdState
	child, err := process.StartRole(process.LoadSide, CrowdRole, string(c.Kind)+" clients", c)
	if err != nil {
		return nil, state, err
	}
	if err := child.ReceiveWithin(&state, time.Minute); err != nil {
		child.Stop()
		return nil, state, err
	}
	return child, state, nil
}

// StateOf asks a crowd. Idle clients send one more request each: the only
// proof that the server did not save memory by closing their connections.
func StateOf(child *process.Child) (CrowdState, error) {
	var state CrowdState
	if err := child.Tell("state"); err != nil {
		return state, err
	}
	err := child.ReceiveWithin(&state, time.Minute)
	return state, err
}

// clients are a crowd from within its process.
type clients interface {
	open() error
	state() (CrowdState, error)
	close()
}

// BeCrowd is the body of the process.
func BeCrowd(text []byte, in io.Reader, out io.Writer) error {
	var spec Crowd
	if err := json.Unmarshal(text, &spec); err != nil {
		return err
	}
	target, err := net.ResolveTCPAddr("tcp4", spec.Addr)
	if err != nil {
		return err
	}
	var c clients
	switch spec.Kind {
	case Idle, Gone, Waiting:
		c = &resting{Crowd: spec, target: target}
	case Heads, Bodies, Readers:
		c = newTrickle(spec, target)
	default:
		return fmt.Errorf("there are no clients of kind %q", spec.Kind)
	}
	defer c.close()
	if err := c.open(); err != nil {
		return err
	}
	for words := bufio.NewScanner(in); ; {
		state, err := c.state()
		if err != nil {
			return err
		}
		if state.CPU, err = ownCPU(); err != nil {
			return err
		}
		if err := process.Reply(out, state); err != nil {
			return err
		}
		if !words.Scan() {
			return words.Err()
		}
	}
}

func ownCPU() (time.Duration, error) {
	var now unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &now)
	return time.Duration(now.Nano()), err
}

// resting are clients that do nothing once they have begun.
type resting struct {
	Crowd
	target *net.TCPAddr
	fds    []int
	asked  bool // the state at the beginning needs no proof
}

// together is how many clients ask before the first reads its answer: else
// each would wait for a turn of the server's process.
const together = 128

func (r *resting) open() error {
	for i := range r.N {
		fd, err := connect(r.target, i)
		if err != nil {
			return fmt.Errorf("connection %d of %d: %w", i+1, r.N, err)
		}
		r.fds = append(r.fds, fd)
		if len(r.fds)%together == 0 || len(r.fds) == r.N {
			first := (len(r.fds) - 1) / together * together
			if failed, err := r.ask(r.fds[first:]); failed > 0 {
				return fmt.Errorf("%d of connections %d to %d: %w", failed, first+1, len(r.fds), err)
			}
		}
	}
	if r.Kind == Gone {
		r.close()
		r.fds = nil
	}
	return nil
}

// ask sends a request over each connection; unless the kind is Waiting it reads
// the answers. It returns how many failed, and why the last of them did.
func (r *resting) ask(fds []int) (failed int, err error) {
	path := r.Path
	if path == "" {
		path = "/"
	}
	request := []byte("GET " + path + " HTTP/1.1\r\nHost: crowd\r\n\r\n")
	broken := make([]bool, len(fds))
	for i, fd := range fds {
		if _, sendErr := unix.Write(fd, request); sendErr != nil {
			broken[i] = true
			failed, err = failed+1, fmt.Errorf("send: %w", sendErr)
		}
	}
	for i, fd := range fds {
		if broken[i] || r.Kind == Waiting {
			continue
		}
		if readErr := readAnswer(fd); readErr != nil {
			failed, err = failed+1, fmt.Errorf("answer: %w", readErr)
		}
	}
	return failed, err
}

func readAnswer(fd int) error {
	resp, err := http.ReadResponse(bufio.NewReader(&descriptor{fd: fd, deadline: time.Now().Add(answerTime)}), nil)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", resp.Status)
	}
	return nil
}

func (r *resting) state() (CrowdState, error) {
	s := CrowdState{Alive: len(r.fds)}
	if r.Kind == Idle && r.asked {
		for first := 0; first < len(r.fds); first += together {
			failed, _ := r.ask(r.fds[first:min(first+together, len(r.fds))]) // why does not matter: it was closed
			s.Closed += failed
		}
		s.Alive -= s.Closed
	}
	r.asked = true
	return s, nil
}

func (r *resting) close() {
	for _, fd := range r.fds {
		unix.Close(fd)
	}
}

// descriptor reads from a non-blocking socket, with patience.
type descriptor struct {
	fd       int
	deadline time.Time
}

func (d *descriptor) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(d.fd, p)
		switch {
		case err == unix.EAGAIN:
			left := time.Until(d.deadline)
			if left <= 0 {
				return 0, fmt.Errorf("no answer within %v", answerTime)
			}
			unix.Poll([]unix.PollFd{{Fd: int32(d.fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}
