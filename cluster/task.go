package cluster

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/catamount-server/catamount/worker"
)

// task is a short-lived process of the master's: one that prepares the memory
// of a phase, or one that says whether a new program could take over. There is
// one at a time.
type task struct {
	role    worker.Role
	program *program
	preload int // the descriptor that it fills; -1: none
	child   child
	// deadline is when it is killed; killed says why it was.
	deadline time.Time
	killed   string
	protocol int    // that it has said it speaks; 0: it has not said hello
	failure  string // what it has said about why it fails
	then     func(error)
}

func (c *Cluster) startTask(t *task, timeout time.Duration, then func(error)) {
	env := c.options.cleanEnv()
	if limits := c.env.limits(); t.role == worker.RolePreload {
		// It has the machine to itself, or shares it with workers that serve.
		share, _ := limits.share(append(env, "GOMEMLIMIT=off"), 1, 0)
		env = append(env, share...)
	}
	in := c.inheritance(t.role, t.program)
	in.Preload = t.preload
	child, err := c.env.start(process{
		program: t.program, title: c.title(fmt.Sprintf("%s [phase %d]", t.role, t.program.phase)),
		argv: c.options.Argv, env: env, inheritance: in,
	})
	if err != nil {
		then(err)
		return
	}
	t.child, t.then, t.deadline = child, then, time.Now().Add(timeout)
	c.task = t
	c.read(&t.child, func(m worker.Message, err error) { c.send(event{task: t, message: m, err: err}) })
}

// prepare has a process fill the memory that the workers of a program share.
func (c *Cluster) prepare(p *program, then func(error)) {
	fd, err := unix.MemfdCreate("catamount-preload", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		then(fmt.Errorf("memfd_create: %w", err))
		return
	}
	began := time.Now()
	t := &task{role: worker.RolePreload, program: p, preload: fd}
	c.startTask(t, c.options.PreloadTimeout, func(err error) {
		if err == nil {
			err = checkSeals(fd)
		}
		if err != nil {
			closeDescriptor(fd)
			then(err)
			return
		}
		p.preload = fd
		c.log.Info("preloaded", "phase", p.phase, "bytes", p.preloadBytes(), "after", time.Since(began).Round(time.Millisecond))
		then(nil)
	})
}

// checkSeals sees to it that nobody can change what workers will map.
func checkSeals(fd int) error {
	const want = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return fmt.Errorf("seals: %w", err)
	}
	if seals&want != want {
		return fmt.Errorf("the process has left its memory unsealed: seals %#x, want %#x", seals, want)
	}
	return nil
}

func (c *Cluster) handleTask(e event) {
	t := e.task
	switch {
	case errors.Is(e.err, io.EOF):
		// Its status comes with a SIGCHLD.
	case e.err != nil:
		t.failure = e.err.Error()
	case e.message.Kind == worker.KindHello:
		t.protocol = e.message.Value
	case e.message.Kind == worker.KindFailed:
		t.failure = e.message.Text
	}
}

func (c *Cluster) checkTask(now time.Time) {
	if t := c.task; t != nil && t.killed == "" && !now.Before(t.deadline) {
		c.killTask("it took too long")
	}
}

func (c *Cluster) killTask(why string) {
	t := c.task
	t.killed, t.deadline = why, time.Time{}
	if err := c.env.kill(t.child.pid, syscall.SIGKILL); err != nil {
		c.log.Error("the process cannot be killed", "role", string(t.role), "pid", t.child.pid, "err", err)
	}
}

// reapTask takes the end of the task.
func (c *Cluster) reapTask() {
	t := c.task
	if t == nil {
		return
	}
	status, done, err := c.env.wait(t.child.pid)
	if !done {
		return
	}
	c.finishReader(&t.child, func(m worker.Message, err error) { c.handle(event{task: t, message: m, err: err}) })
	t.child.close()
	c.task = nil
	if err == nil {
		err = t.result(status)
	}
	t.then(err)
}

// result is nil when a task has done what it was there for.
func (t *task) result(status syscall.WaitStatus) error {
	switch {
	case t.killed != "":
		return fmt.Errorf("the process was killed: %s", t.killed)
	case status.Signaled():
		return fmt.Errorf("the process was killed by %s", SignalName(status.Signal()))
	case t.failure != "":
		return fmt.Errorf("exit code %d: %s", status.ExitStatus(), t.failure)
	case status.ExitStatus() != 0:
		return fmt.Errorf("the process ended with exit code %d", status.ExitStatus())
	case t.protocol == 0:
		return fmt.Errorf("the process did not say hello: it is no program of this server (want %s to be understood)", worker.InheritanceVariable)
	}
	return nil
}
