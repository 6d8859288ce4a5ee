package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
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
// prints how many there are; it answers each line on stdin with two numbers,
// how many are alive and how many the server closed; it ends with its stdin.
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
		fmt.Fprintln(out, alive, closed)
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

// checkClients asks a client process how its connections are.
func (c *child) checkClients() (alive, closed int, err error) {
	if _, err := io.WriteString(c.stdin, "check\n"); err != nil {
		return 0, 0, fmt.Errorf("%s: %w", c.name, err)
	}
	line, err := c.readLine()
	if err != nil {
		return 0, 0, err
	}
	_, err = fmt.Sscan(line, &alive, &closed)
	return alive, closed, err
}
