package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// clients are many connections of one kind, in a process of their own so that
// they do not disturb what they measure.
type clients interface {
	// open opens the connections and returns how many are open.
	open() (int, error)
	// check returns how many are still open, and how many the server closed.
	check() (alive, closed int, err error)
}

// beClient is the body of a client process. It opens its connections and
// prints how many there are; it answers each line on stdin with three numbers:
// how many are alive, how many the server closed, and the nanoseconds of CPU
// that it has used; it ends with its stdin.
func beClient(kind, target string, n int, in io.Reader, out io.Writer) error {
	addr, err := net.ResolveTCPAddr("tcp4", target)
	if err != nil {
		return err
	}
	var c clients
	switch kind {
	case "idle":
		c = &idleClients{target: addr, n: n}
	case "gone":
		c = &idleClients{target: addr, n: n, leave: true}
	case "slow":
		s := newSlowClients(addr, n)
		defer s.stop()
		c = s
	default:
		return fmt.Errorf("there are no clients of kind %q", kind)
	}
	opened, err := c.open()
	if err != nil {
		return err
	}
	fmt.Fprintln(out, opened)
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		alive, closed, err := c.check()
		if err != nil {
			return err
		}
		u, err := readUsage()
		if err != nil {
			return err
		}
		fmt.Fprintln(out, alive, closed, int64(u.User+u.System))
	}
	return lines.Err()
}

// startClients starts a client process and returns when its connections are
// open, with their number.
func startClients(kind, target string, n int) (c *child, opened int, err error) {
	c, err = startChild(loadCPU, kind+" clients", "-client", kind, "-target", target, "-n", strconv.Itoa(n))
	if err != nil {
		return nil, 0, err
	}
	line, err := c.readLine()
	if err == nil {
		opened, err = strconv.Atoi(line)
	}
	if err != nil {
		c.stop()
		return nil, 0, err
	}
	return c, opened, nil
}

// clientState is what a client process tells about itself.
type clientState struct {
	alive  int // connections
	closed int // connections that the server closed
	cpu    time.Duration
}

func (c *child) clientState() (s clientState, err error) {
	if _, err := io.WriteString(c.stdin, "state\n"); err != nil {
		return s, fmt.Errorf("%s: %w", c.name, err)
	}
	line, err := c.readLine()
	if err != nil {
		return s, err
	}
	_, err = fmt.Sscan(line, &s.alive, &s.closed, (*int64)(&s.cpu))
	return s, err
}
