package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The processors of the two sides. With one processor both share it, and the
// figures tell little.
const (
	serverCPU = 0
	loadCPU   = 1
)

// allowedCPUs lists the processors that this process may use.
func allowedCPUs() []int {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return nil
	}
	var cpus []int
	for cpu := range 64 * len(set) {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}

func describeMachine(out io.Writer) {
	cpus := allowedCPUs()
	fmt.Fprintf(out, "%s %s/%s, %d processors allowed; server: GOMAXPROCS=1", runtime.Version(), runtime.GOOS, runtime.GOARCH, len(cpus))
	if len(cpus) > 1 {
		fmt.Fprintf(out, " on processor %d, load on processor %d\n", cpus[serverCPU], cpus[loadCPU])
	} else {
		fmt.Fprint(out, "\nONE PROCESSOR ONLY: server and load take it from each other; do not compare these figures.\n")
	}
}

// startOn starts cmd on the side-th of the allowed processors. Affinity belongs
// to threads and is inherited: so this thread moves, starts cmd and moves back.
func startOn(side int, cmd *exec.Cmd) error {
	cpus := allowedCPUs()
	if side >= len(cpus) {
		return cmd.Start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, there unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return fmt.Errorf("sched_getaffinity: %w", err)
	}
	there.Set(cpus[side])
	if err := unix.SchedSetaffinity(0, &there); err != nil {
		return fmt.Errorf("sched_setaffinity: %w", err)
	}
	return errors.Join(cmd.Start(), unix.SchedSetaffinity(0, &before))
}

// A child is this program in another role. It talks in lines over its stdin
// and stdout, and ends when its stdin does.
type child struct {
	name  string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines *bufio.Scanner
}

func startChild(side int, name string, args ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{name: name, cmd: exec.Command(self, args...)}
	c.cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	c.cmd.Stderr = os.Stderr
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.lines = bufio.NewScanner(stdout)
	if err := startOn(side, c.cmd); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

func (c *child) readLine() (string, error) {
	if !c.lines.Scan() {
		return "", fmt.Errorf("%s ended early: %w", c.name, errors.Join(c.lines.Err(), io.ErrUnexpectedEOF))
	}
	return c.lines.Text(), nil
}

// stop ends the child and waits for it.
func (c *child) stop() {
	c.stdin.Close()
	for c.lines.Scan() {
	}
	c.cmd.Wait()
}

// A server is a running server process.
type server struct {
	*child
	addr string
}

func startServer(name string, threads int) (*server, error) {
	c, err := startChild(serverCPU, name, "-serve", name, "-threads", strconv.Itoa(threads))
	if err != nil {
		return nil, err
	}
	addr, err := c.readLine()
	if err != nil {
		c.stop()
		return nil, err
	}
	return &server{c, addr}, nil
}

// usage asks the server for its usage, after a collection when gc is set.
func (s *server) usage(gc bool) (u usage, err error) {
	command := "usage\n"
	if gc {
		command = "gc\n"
	}
	if _, err := io.WriteString(s.stdin, command); err != nil {
		return u, fmt.Errorf("%s: %w", s.name, err)
	}
	line, err := s.readLine()
	if err != nil {
		return u, err
	}
	return u, json.Unmarshal([]byte(line), &u)
}

// memory is what the kernel counts for a process, in bytes.
type memory struct {
	rss, pss, anonymous int64
}

func (s *server) memory() (memory, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", s.cmd.Process.Pid))
	if err != nil {
		return memory{}, err
	}
	return parseSmaps(string(text))
}

// parseSmaps reads smaps_rollup (proc_pid_smaps(5)): lines of "Name: N kB".
func parseSmaps(text string) (m memory, err error) {
	want := map[string]*int64{"Rss:": &m.rss, "Pss:": &m.pss, "Anonymous:": &m.anonymous}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != 3 || want[fields[0]] == nil {
			continue
		}
		kb, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return m, fmt.Errorf("smaps_rollup: %w", err)
		}
		*want[fields[0]] = kb << 10
		delete(want, fields[0])
	}
	if len(want) > 0 {
		return m, errors.New("smaps_rollup: Rss, Pss or Anonymous is missing")
	}
	return m, nil
}
