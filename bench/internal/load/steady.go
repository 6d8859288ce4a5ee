package load

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/catamount-server/catamount/bench/internal/process"
)

// SteadyRole is the role of a steady load.
const SteadyRole = "steady"

// Steady is a load over connections that stay. Its connections are open before
// it begins, so that they cost nothing in the time that is measured.
type Steady struct {
	Addr       string
	Request    Request // without Close and Pipeline
	AnswerSize int     // bytes of each answer on the wire
	Conns      int
	Rate       float64       // requests per second; 0: as fast as the answers come
	Duration   time.Duration // from when it is told to go
	// Spin keeps the load awake between requests: else it wakes late and
	// measures that. Not where it shares the processor with the server.
	Spin bool
}

// SteadyLoad is a steady load whose connections are open.
type SteadyLoad struct {
	child    *process.Child
	duration time.Duration
}

// StartSteady opens the connections of a steady load.
func StartSteady(s Steady) (*SteadyLoad, error) {
	s.Spin = len(process.Processors()) > 1
	child, err := process.StartRole(process.LoadSide, SteadyRole, "steady load", s)
	if err != nil {
		return nil, err
	}
	var open int
	if err := child.Receive(&open); err != nil {
		child.Stop()
		return nil, err
	}
	return &SteadyLoad{child, s.Duration}, nil
}

// Run runs the load. It may be run several times.
func (l *SteadyLoad) Run() (r Result, err error) {
	if err := l.child.Tell("go"); err != nil {
		return r, err
	}
	err = l.child.ReceiveWithin(&r, l.duration+2*answerTime)
	return r, err
}

// Stop closes the connections.
func (l *SteadyLoad) Stop() error { return l.child.Stop() }

// BeSteady is the body of the process.
func BeSteady(text []byte, in io.Reader, out io.Writer) error {
	var s Steady
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	if s.Conns < 1 || s.AnswerSize < 1 || s.Request.Close || s.Request.Pipeline > 1 {
		return errors.New("a steady load wants connections that stay, and answers of a known size")
	}
	engine, err := newEngine(s)
	if err != nil {
		return err
	}
	defer engine.close()
	if err := process.Reply(out, len(engine.conns)); err != nil {
		return err
	}
	words := bufio.NewScanner(in)
	for words.Scan() {
		if words.Text() != "go" {
			return fmt.Errorf("unknown word %q", words.Text())
		}
		r, err := engine.run()
		if err != nil {
			return err
		}
		if err := process.Reply(out, r); err != nil {
			return err
		}
	}
	return words.Err()
}
