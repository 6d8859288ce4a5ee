package load

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

	"github.com/catamount-server/catamount/bench/internal/process"
)

//go:embed script.lua
var script string

// ErrUnreachable means that the server let nobody in.
var ErrUnreachable = errors.New("the server accepts no connections")

// wrk tries one connection before all else, and when the queue of the listener
// is full that takes the kernel two minutes to give up.
const wrkGrace = 10 * time.Second

// Wrk runs wrk; Directory is where it finds its script.
type Wrk struct {
	Directory string
}

// WrkVersion returns the version of the installed wrk, or "".
func WrkVersion() string {
	path, err := exec.LookPath("wrk")
	if err != nil {
		return ""
	}
	output, _ := exec.Command(path, "-v").CombinedOutput() // it exits with 1
	return parseWrkVersion(string(output))
}

func parseWrkVersion(text string) string {
	if fields := strings.Fields(text); len(fields) > 1 && fields[0] == "wrk" {
		return fields[1]
	}
	return "unknown"
}

// Run loads addr from the load's processor for whole seconds.
func (w Wrk) Run(addr string, request Request, conns int, d time.Duration) (Result, error) {
	path := filepath.Join(w.Directory, "script.lua")
	if err := os.WriteFile(path, []byte(script), 0o644); err != nil {
		return Result{}, err
	}
	seconds := max(int(d.Round(time.Second).Seconds()), 1)
	args := []string{"-t1", "-c" + strconv.Itoa(conns), fmt.Sprintf("-d%ds", seconds), "--timeout", "10s", "-s", path}
	for _, field := range Fields(request.Headers) {
		args = append(args, "-H", field[0]+": "+field[1])
	}
	if request.Close {
		args = append(args, "-H", "Connection: close")
	}
	args = append(args, "http://"+addr+request.path(),
		"--", request.method(), strconv.Itoa(request.Body), strconv.Itoa(request.pipeline()))

	limit := time.Duration(seconds)*time.Second + wrkGrace
	ctx, cancel := context.WithTimeoutCause(context.Background(), limit, ErrUnreachable)
	defer cancel()
	cmd := exec.CommandContext(ctx, "wrk", args...)
	var output strings.Builder
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := process.StartOn(process.LoadSide, cmd); err != nil {
		return Result{}, fmt.Errorf("wrk: %w", err)
	}
	if err := cmd.Wait(); err != nil {
		return Result{}, fmt.Errorf("wrk: %w\n%s", errors.Join(err, context.Cause(ctx)), output.String())
	}
	return parseWrk(output.String())
}

var (
	wrkTotal  = regexp.MustCompile(`(?m)^\s+(\d+) requests in ([0-9.]+)(ms|s|m),`)
	wrkBad    = regexp.MustCompile(`Non-2xx or 3xx responses: (\d+)`)
	wrkErrors = regexp.MustCompile(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`)
)

func parseWrk(text string) (r Result, err error) {
	m := wrkTotal.FindStringSubmatch(text)
	if m == nil {
		return r, fmt.Errorf("wrk: no total in %q", text)
	}
	var took time.Duration
	if took, err = time.ParseDuration(m[2] + m[3]); err != nil {
		return r, fmt.Errorf("wrk: %w", err)
	}
	r.Seconds = took.Seconds()
	number := func(s string) int64 {
		n, numberErr := strconv.ParseInt(s, 10, 64)
		err = errors.Join(err, numberErr)
		return n
	}
	r.Requests = number(m[1])
	if m := wrkBad.FindStringSubmatch(text); m != nil {
		r.Bad = number(m[1])
	}
	if m := wrkErrors.FindStringSubmatch(text); m != nil {
		r.Broken = number(m[1]) + number(m[2]) + number(m[3])
		r.Timeouts = number(m[4])
	}
	return r, err
}
