package process

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// RoleArgument is the first argument of a child in a role; the role's name and
// its specification in JSON follow.
const RoleArgument = "role"

// patience is how long a child may take for a line; loads take longer and say
// so.
const patience = 30 * time.Second

// A Child is this program in a role. It is told words over its stdin, one a
// line, and answers with lines of JSON on its stdout.
type Child struct {
	name   string
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *os.File
	lines  *bufio.Reader
}

// StartRole starts this program in a role. The name appears in errors.
func StartRole(side Side, role, name string, spec any) (*Child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	c := &Child{name: name, cmd: exec.Command(self, RoleArgument, role, string(text))}
	c.cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	c.cmd.Stderr = os.Stderr
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	// Not StdoutPipe: Wait would close it, and it has no deadline in its type.
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer writer.Close()
	c.stdout, c.lines, c.cmd.Stdout = reader, bufio.NewReader(reader), writer
	if err := StartOn(side, c.cmd); err != nil {
		reader.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

// Receive reads the next line into v.
func (c *Child) Receive(v any) error { return c.ReceiveWithin(v, patience) }

// ReceiveWithin is Receive for a child that needs longer.
func (c *Child) ReceiveWithin(v any, limit time.Duration) error {
	if err := c.stdout.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	line, err := c.lines.ReadBytes('\n')
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("ended early: %w", io.ErrUnexpectedEOF)
	}
	if err == nil {
		err = json.Unmarshal(line, v)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	return nil
}

// Tell sends a word.
func (c *Child) Tell(word string) error {
	if _, err := io.WriteString(c.stdin, word+"\n"); err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	return nil
}

// Ask sends a word and reads the answer into v.
func (c *Child) Ask(word string, v any) error {
	if err := c.Tell(word); err != nil {
		return err
	}
	return c.Receive(v)
}

// Stop ends the child and waits for it; one that does not end with its stdin
// is killed.
func (c *Child) Stop() error {
	c.stdin.Close()
	killer := time.AfterFunc(patience, func() { c.cmd.Process.Kill() })
	defer killer.Stop()
	err := c.cmd.Wait()
	c.stdout.Close()
	if err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	return nil
}

// Reply writes v as the line of JSON that a child answers with.
func Reply(out io.Writer, v any) error { return json.NewEncoder(out).Encode(v) }
