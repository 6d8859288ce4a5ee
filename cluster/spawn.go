package cluster

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/catamount-server/catamount/worker"
)

// titleBytes is how long the first word of a child's command line is at least:
// the room that it has for its title.
const titleBytes = 160

// process is a process to start.
type process struct {
	program *program
	title   string
	argv    []string // the program's own, with its first word
	env     []string
	// inheritance is what the process gets; its descriptors are this process's
	// numbers, and -1 where there is none.
	inheritance worker.Inheritance
}

// child is a process that was started: its pid and the master's ends of its
// pipes.
type child struct {
	pid int
	// messages is what it writes; end-of-file means that it is gone. pipe is the
	// descriptor's number.
	messages io.ReadCloser
	pipe     int
	// check is the end of a pipe that the child watches: that it is closed tells
	// it that the master is gone.
	check int
	// readerDone is closed when nobody reads messages any more; unread is then
	// what was read but is no whole line yet.
	readerDone chan struct{}
	unread     []byte
}

func (c *child) close() {
	if c.messages != nil {
		_ = c.messages.Close()
	}
	if c.check >= 0 {
		_ = unix.Close(c.check)
	}
	c.messages, c.pipe, c.check = nil, -1, -1
}

// startProcess executes a process with its two pipes. It uses raw descriptors
// only: an os.File or exec.Cmd would make the shared sockets blocking.
func startProcess(p process) (child, error) {
	messages, err := newPipe()
	if err != nil {
		return child{}, err
	}
	check, err := newPipe()
	if err != nil {
		messages.close()
		return child{}, err
	}
	pid, err := execute(p, messages.write, check.read)
	_ = unix.Close(messages.write)
	_ = unix.Close(check.read)
	if err != nil {
		_ = unix.Close(messages.read)
		_ = unix.Close(check.write)
		return child{}, err
	}
	return child{
		pid:      pid,
		messages: os.NewFile(uintptr(messages.read), "|messages"),
		pipe:     messages.read,
		check:    check.write,
	}, nil
}

func execute(p process, pipe, check int) (pid int, err error) {
	in := p.inheritance
	// Number n of files is descriptor n of the child.
	files := []int{0, 1, 2}
	give := func(fd int) int {
		if fd < 0 {
			return -1
		}
		files = append(files, fd)
		return len(files) - 1
	}
	in.Pipe, in.Check = give(pipe), give(check)
	in.Page, in.Preload = give(in.Page), give(in.Preload)
	in.HandOver = [2]int{give(in.HandOver[0]), give(in.HandOver[1])}
	in.Listeners = slices.Clone(in.Listeners)
	for i := range in.Listeners {
		in.Listeners[i].FD = give(in.Listeners[i].FD)
	}
	// While it puts the files in their places, ForkExec uses numbers above the
	// highest for copies. The executable must lie beyond.
	exe, err := duplicateFrom(p.program.exe, max(len(files), slices.Max(files))+len(files)+2)
	if err != nil {
		return 0, err
	}
	defer unix.Close(exe)
	attr := &syscall.ProcAttr{
		Dir: fmt.Sprintf("/proc/self/fd/%d", p.program.directory),
		Env: append(slices.Clone(p.env), worker.InheritanceVariable+"="+in.Encode()),
	}
	for _, fd := range files {
		attr.Files = append(attr.Files, uintptr(fd))
	}
	argv := append([]string{padTitle(p.title)}, p.argv[1:]...)
	pid, err = syscall.ForkExec(fmt.Sprintf("/proc/self/fd/%d", exe), argv, attr)
	if err != nil {
		if _, missing := os.Stat("/proc/self/fd"); missing != nil {
			return 0, fmt.Errorf("cannot execute the program of phase %d without /proc: %w", p.program.phase, missing)
		}
		return 0, fmt.Errorf("cannot execute the program of phase %d in %s: %w", p.program.phase, p.program.name, err)
	}
	return pid, nil
}

// duplicateFrom duplicates the executable's descriptor to a number from first on.
func duplicateFrom(exe, first int) (int, error) {
	fd, err := unix.FcntlInt(uintptr(exe), unix.F_DUPFD_CLOEXEC, first)
	if errors.Is(err, unix.EINVAL) { // what fcntl(2) says of a number beyond the limit
		return -1, namingLimit(fmt.Errorf("starting a process takes descriptors up to %d: %w", first, unix.EMFILE))
	}
	if err != nil {
		return -1, namingLimit(fmt.Errorf("descriptor of the program: %w", err))
	}
	return fd, nil
}

// namingLimit adds the limit of descriptors to an error that comes from it.
func namingLimit(err error) error {
	var limit unix.Rlimit
	if !errors.Is(err, unix.EMFILE) || unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return err
	}
	return fmt.Errorf("%w: RLIMIT_NOFILE (ulimit -n) is %d", err, limit.Cur)
}

// pipeEnds are both ends of a pipe.
type pipeEnds struct{ read, write int }

func newPipe() (pipeEnds, error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return pipeEnds{}, namingLimit(fmt.Errorf("pipe: %w", err))
	}
	return pipeEnds{ends[0], ends[1]}, nil
}

func (p pipeEnds) close() { _, _ = unix.Close(p.read), unix.Close(p.write) }

// newHandOver makes the pair of sockets over which workers give connections to
// each other.
func newHandOver() (pair [2]int, err error) {
	pair, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return [2]int{-1, -1}, namingLimit(fmt.Errorf("socketpair: %w", err))
	}
	return pair, nil
}

// env is the operating system, as far as the master needs it, as function
// fields so that tests can do without processes.
type env struct {
	start func(process) (child, error)
	kill  func(pid int, signal syscall.Signal) error
	// wait takes the status of a child that has ended; done is false while it
	// has not.
	wait func(pid int) (status syscall.WaitStatus, done bool, err error)
	// dead finds a child that has ended and whose status nobody has taken yet.
	dead func() (pid int, ok bool)
	// reaper: children whose parents have died become this process's, and
	// nobody else will take their status.
	reaper bool
	// notify has signals sent to a channel until forget.
	notify func(c chan<- os.Signal, signals ...os.Signal)
	forget func(c chan<- os.Signal)
	// hold makes signals wait until release, or for the program that is executed;
	// allow lets them through to processes that this thread starts.
	hold  func() (release func())
	allow func()
	// exec replaces this process by another program.
	exec func(path string, argv, env []string) error
	// privateMemory is a process's own memory in bytes, 0 if unknown.
	privateMemory func(pid int) int64
	// killedForMemory counts the processes that the kernel has killed for want
	// of memory in this process's control group.
	killedForMemory func() uint64
	limits          func() limits
}

func kernel() env {
	return env{
		start:           startProcess,
		kill:            syscall.Kill,
		wait:            waitChild,
		dead:            deadChild,
		reaper:          os.Getpid() == 1 || isSubreaper(),
		notify:          signal.Notify,
		forget:          signal.Stop,
		hold:            holdSignals,
		allow:           allowSignals,
		exec:            syscall.Exec,
		privateMemory:   privateMemory,
		killedForMemory: killedForMemory,
		limits:          readLimits,
	}
}

func waitChild(pid int) (status syscall.WaitStatus, done bool, err error) {
	for {
		got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return status, true, fmt.Errorf("wait4 of %d: %w", pid, err)
		default:
			return status, got == pid, nil
		}
	}
}
