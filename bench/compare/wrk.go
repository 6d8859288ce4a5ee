package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

//go:embed pipeline.lua
var pipelineLua string

// load describes one run of wrk.
type load struct {
	addr     string
	conns    int
	duration time.Duration
	pipeline int // requests in one write; 0: as 1
	fields   int // header fields of a request; 0: as 1
}

// scripted reports whether wrk needs a script for it.
func (l load) scripted() bool { return l.pipeline > 1 || l.fields > 1 }

// result is what wrk counted.
type result struct {
	requests int64
	seconds  float64
	bad      int64 // answers with a status of 400 or more
	timeouts int64 // answers that took longer than wrk's two seconds
	broken   int64 // connect, read and write errors
}

func (r result) rate() float64 { return float64(r.requests) / r.seconds }

// runWrk loads a server from the load's processor.
func runWrk(l load) (result, error) {
	path, err := exec.LookPath("wrk")
	if err != nil {
		return result{}, errors.New("there is no wrk to make the load; on Debian: apt-get install wrk")
	}
	args := []string{"-t1", "-c" + strconv.Itoa(l.conns), fmt.Sprintf("-d%ds", int(l.duration.Seconds()))}
	if l.scripted() {
		dir, err := os.MkdirTemp("", "compare")
		if err != nil {
			return result{}, err
		}
		defer os.RemoveAll(dir)
		script := filepath.Join(dir, "pipeline.lua")
		if err := os.WriteFile(script, []byte(pipelineLua), 0o600); err != nil {
			return result{}, err
		}
		args = append(args, "-s", script)
	}
	args = append(args, "http://"+l.addr+"/")
	if l.scripted() {
		args = append(args, "--", strconv.Itoa(max(l.pipeline, 1)), strconv.Itoa(max(l.fields, 1)))
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), l.duration+wrkGrace, errUnreachable)
	defer cancel()
	var output strings.Builder
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := startOn(loadCPU, cmd); err != nil {
		return result{}, err
	}
	if err := cmd.Wait(); err != nil {
		return result{}, fmt.Errorf("wrk: %w\n%s", errors.Join(err, context.Cause(ctx)), output.String())
	}
	return parseWrk(output.String())
}

// wrk tries one connection before all else, and when the queue of the listener
// is full that takes the kernel two minutes to give up.
const wrkGrace = 10 * time.Second

// errUnreachable means that the server let nobody in.
var errUnreachable = errors.New("the server accepts no connections")

var (
	wrkTotal  = regexp.MustCompile(`(?m)^\s+(\d+) requests in ([0-9.]+)(ms|s|m),`)
	wrkBad    = regexp.MustCompile(`Non-2xx or 3xx responses: (\d+)`)
	wrkErrors = regexp.MustCompile(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`)
)

func parseWrk(text string) (r result, err error) {
	m := wrkTotal.FindStringSubmatch(text)
	if m == nil {
		return r, fmt.Errorf("wrk: no total in %q", text)
	}
	var took time.Duration
	if took, err = time.ParseDuration(m[2] + m[3]); err != nil {
		return r, fmt.Errorf("wrk: %w", err)
	}
	r.seconds = took.Seconds()
	number := func(s string) int64 {
		n, numberErr := strconv.ParseInt(s, 10, 64)
		err = errors.Join(err, numberErr)
		return n
	}
	r.requests = number(m[1])
	if m := wrkBad.FindStringSubmatch(text); m != nil {
		r.bad = number(m[1])
	}
	if m := wrkErrors.FindStringSubmatch(text); m != nil {
		r.broken = number(m[1]) + number(m[2]) + number(m[3])
		r.timeouts = number(m[4])
	}
	return r, err
}

// clean refuses a result of which some requests failed: a server must not win
// by answering errors.
func (r result) clean() error {
	if r.requests == 0 || r.bad > 0 || r.broken > 0 {
		return fmt.Errorf("wrk: %d requests, of which bad %d, socket errors %d", r.requests, r.bad, r.broken)
	}
	return nil
}
