package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// answerTime is how long the server's process may take to answer a command.
const answerTime = 20 * time.Second

// A command is a line of JSON to the server's process, which answers each with
// one line: a snapshot.
type command struct {
	// Name is "look", "collect" (look after a garbage collection) or "shutdown".
	Name string `json:"command"`
}

// A serverProcess is this program in its other role.
type serverProcess struct {
	cmd        *exec.Cmd
	stdin      io.WriteCloser
	stdout     *os.File
	lines      *bufio.Reader
	addr       string
	processors int
}

// greeting is the first line of a server's process.
type greeting struct {
	Addr       string `json:"addr"`
	Processors int    `json:"gomaxprocs"`
}

func startServer(s settings) (*serverProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{"-serve", "-directory", s.directory, "-sndbuf", strconv.Itoa(s.sendBuffer)}
	if s.verbose {
		args = append(args, "-v")
	}
	if s.faulty {
		args = append(args, "-faulty")
	}
	p := &serverProcess{cmd: exec.Command(self, args...)}
	p.cmd.Stderr = os.Stderr
	p.cmd.Env = os.Environ()
	if s.processors > 0 {
		p.cmd.Env = append(p.cmd.Env, "GOMAXPROCS="+strconv.Itoa(s.processors))
	}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	// A pipe of our own, because reading from it has to have a deadline.
	stdout, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.cmd.Stdout, p.stdout, p.lines = theirs, stdout, bufio.NewReader(stdout)
	err = p.cmd.Start()
	theirs.Close()
	if err != nil {
		return nil, errors.Join(err, stdout.Close())
	}
	var hello greeting
	if err := p.read(&hello); err != nil {
		p.stop()
		return nil, err
	}
	p.addr, p.processors = hello.Addr, hello.Processors
	return p, nil
}

func (p *serverProcess) read(into any) error {
	if err := p.stdout.SetReadDeadline(time.Now().Add(answerTime)); err != nil {
		return err
	}
	line, err := p.lines.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("the server's process does not answer: %w", err)
	}
	return json.Unmarshal(line, into)
}

func (p *serverProcess) ask(name string) (*snapshot, error) {
	if err := json.NewEncoder(p.stdin).Encode(command{name}); err != nil {
		return nil, fmt.Errorf("the server's process does not listen: %w", err)
	}
	var reply snapshot
	if err := p.read(&reply); err != nil {
		return nil, err
	}
	if reply.Failure != "" {
		return nil, fmt.Errorf("%s: %s", name, reply.Failure)
	}
	return &reply, nil
}

// poll asks again and again until the reply is good or the time is over, and
// returns the last reply.
func (p *serverProcess) poll(name string, every, limit time.Duration, good func(*snapshot) bool) (*snapshot, error) {
	over := time.NewTimer(limit)
	defer over.Stop()
	pace := time.NewTicker(every)
	defer pace.Stop()
	for {
		reply, err := p.ask(name)
		if err != nil || good(reply) {
			return reply, err
		}
		select {
		case <-over.C:
			return p.ask(name)
		case <-pace.C:
		}
	}
}

// rest waits until the server has nothing to do, and holds no more than before
// where that is given. Whether it does is for the caller to judge.
func (p *serverProcess) rest(before *snapshot, limit time.Duration) (*snapshot, error) {
	isGood := func(now *snapshot, early bool) bool {
		r := report{before: before, after: now, early: early}
		if before == nil {
			r.before = now
		}
		r.judge()
		return len(r.faults) == 0
	}
	began := time.Now()
	if _, err := p.poll("look", 100*time.Millisecond, limit, func(now *snapshot) bool { return isGood(now, true) }); err != nil {
		return nil, err
	}
	// Buffers of the pool's places go when the pool is trimmed, every half minute.
	limit = max(limit-time.Since(began), time.Millisecond)
	return p.poll("collect", time.Second, limit, func(now *snapshot) bool { return isGood(now, false) })
}

// shutdown ends the server, not its process, and looks at what is left.
func (p *serverProcess) shutdown() (*snapshot, error) {
	if _, err := p.ask("shutdown"); err != nil {
		return nil, err
	}
	return p.poll("look", 100*time.Millisecond, 3*time.Second, func(now *snapshot) bool {
		r := report{shutdown: now}
		r.judgeShutdown()
		return len(r.faults) == 0
	})
}

// stop ends the process with its standard input, and by force when it does not
// listen.
func (p *serverProcess) stop() {
	p.stdin.Close()
	kill := time.AfterFunc(answerTime, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	_, _ = io.Copy(io.Discard, p.lines)
	_ = p.cmd.Wait()
	p.stdout.Close()
}
