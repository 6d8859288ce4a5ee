package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/catamount-server/catamount/worker"
)

// StateVariable is the environment variable by which the program that ran
// before in this process leaves its state to the next one. The caller of New
// passes its value on as Options.State and takes it out of the environment.
const StateVariable = "CATAMOUNT_STATE"

// stateFormat is the version of the state. A program that reads another one
// cannot take over, and executes the old program again.
const stateFormat = 1

// state is what a hot restart leaves to the new program: it stays in the same
// process, so descriptors and children are what they were.
type state struct {
	Format    int       `json:"format"`
	Argv0     string    `json:"argv0"`
	Path      string    `json:"path"`
	Directory string    `json:"directory"`
	StartedAt time.Time `json:"started_at"`
	Counts    Counts    `json:"counts"`
	// Configured is how many workers the configuration wanted, Wanted how many
	// have become of that by scaling.
	Configured int `json:"configured"`
	Wanted     int `json:"wanted"`
	LastPhase  int `json:"last_phase"`
	// Again is the restart that was asked for meanwhile.
	Again restartKind `json:"again"`
	// Files are Options.Files.
	Files []string `json:"files"`

	Page      int             `json:"page"`
	HandOver  [2]int          `json:"hand_over"`
	Listeners []stateListener `json:"listeners"`
	Programs  []stateProgram  `json:"programs"`
	Workers   []stateWorker   `json:"workers"`
	// For a program that lays out the page otherwise: the application's counters,
	// and what the page counts together with Base, which is not in the page.
	Counters map[string]uint64 `json:"counters"`
	Total    worker.Stats      `json:"total"`
	Base     worker.Stats      `json:"base"`

	// Target is the program of the workers, by its place in Programs; Next is
	// the one that was executed, -1: none.
	Target int `json:"target"`
	Next   int `json:"next"`

	// rolledBack says why the next program could not take over, when the one
	// that has written the state reads it itself.
	rolledBack string
}

type stateListener struct {
	Bind string      `json:"bind"`
	FD   int         `json:"fd"`
	File *socketFile `json:"file"`
}

type stateProgram struct {
	Phase     int    `json:"phase"`
	Exe       int    `json:"exe"`
	Preload   int    `json:"preload"`
	Directory int    `json:"directory"`
	Name      string `json:"name"` // of the directory
	Proven    bool   `json:"proven"`
}

type stateWorker struct {
	Index       int           `json:"index"`
	PID         int           `json:"pid"`
	Program     int           `json:"program"`
	Pipe        int           `json:"pipe"`
	Check       int           `json:"check"`
	Unread      []byte        `json:"unread"`
	Stage       Stage         `json:"stage"`
	Hello       bool          `json:"hello"`
	StartedAt   time.Time     `json:"started_at"`
	BootedAt    time.Time     `json:"booted_at"`
	TimeLeft    time.Duration `json:"time_left"` // of a terminating one
	MaxRequests uint64        `json:"max_requests"`
	MaxAge      time.Duration `json:"max_age"`
	MaxMemory   int64         `json:"max_memory"`
}

// descriptors are all that must stay open.
func (s *state) descriptors() []int {
	fds := []int{s.Page, s.HandOver[0], s.HandOver[1]}
	for _, l := range s.Listeners {
		fds = append(fds, l.FD)
	}
	for _, p := range s.Programs {
		fds = append(fds, p.Exe, p.Preload, p.Directory)
	}
	for _, w := range s.Workers {
		fds = append(fds, w.Pipe, w.Check)
	}
	kept := fds[:0]
	for _, fd := range fds {
		if fd >= 0 {
			kept = append(kept, fd)
		}
	}
	return kept
}

// closeOnExec sets or clears the flag of all descriptors. All must be open.
func (s *state) closeOnExec(set bool) error {
	flag := 0
	if set {
		flag = unix.FD_CLOEXEC
	}
	var errs []error
	for _, fd := range s.descriptors() {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, flag); err != nil {
			errs = append(errs, fmt.Errorf("descriptor %d: %w", fd, err))
		}
	}
	return errors.Join(errs...)
}

// write puts the state into memory of its own, whose descriptor is open across
// an exec.
func (s *state) write() (fd int, err error) {
	text, err := json.Marshal(s)
	if err != nil {
		return -1, fmt.Errorf("state: %w", err)
	}
	fd, err = unix.MemfdCreate("catamount-state", 0)
	if err != nil {
		return -1, fmt.Errorf("state: memfd_create: %w", err)
	}
	for len(text) > 0 {
		n, err := unix.Write(fd, text)
		if err != nil {
			_ = unix.Close(fd)
			return -1, fmt.Errorf("state: %w", err)
		}
		text = text[n:]
	}
	return fd, nil
}

// readState reads what write has written, by the value of StateVariable: the
// descriptor's number, and after a blank, if this is a rollback, its reason.
func readState(variable string) (s *state, fd int, err error) {
	number, reason, _ := strings.Cut(variable, " ")
	fd, err = strconv.Atoi(number)
	if err != nil || fd < 3 {
		return nil, -1, fmt.Errorf("%s is %.32q, want a descriptor", StateVariable, variable)
	}
	unix.CloseOnExec(fd)
	var text []byte
	for chunk := make([]byte, 64<<10); ; {
		n, err := unix.Pread(fd, chunk, int64(len(text)))
		if err != nil {
			return nil, -1, fmt.Errorf("%s: descriptor %d: %w", StateVariable, fd, err)
		}
		if n == 0 {
			break
		}
		text = append(text, chunk[:n]...)
	}
	s = &state{}
	if err := json.Unmarshal(text, s); err != nil {
		return nil, -1, fmt.Errorf("%s: descriptor %d: %w", StateVariable, fd, err)
	}
	s.rolledBack = reason
	if s.Target < 0 || s.Target >= len(s.Programs) || s.Next < -1 || s.Next >= len(s.Programs) {
		return nil, -1, fmt.Errorf("%s: no programs %d and %d among %d", StateVariable, s.Target, s.Next, len(s.Programs))
	}
	return s, fd, nil
}

// IsRollback reports whether the program that has got this value of
// StateVariable was here before, and is back because the next one could not take
// over. Nobody comes after it.
func IsRollback(variable string) bool { return strings.Contains(variable, " ") }

func (s *state) check() error {
	if s.Format != stateFormat {
		return fmt.Errorf("%s: its format is %d, want %d", StateVariable, s.Format, stateFormat)
	}
	if s.Again < noRestart || s.Again > hot {
		return fmt.Errorf("%s: no restart %d", StateVariable, s.Again)
	}
	for _, w := range s.Workers {
		if w.Program < 0 || w.Program >= len(s.Programs) || w.PID <= 0 || w.Index < 0 || w.Stage < Started || w.Stage > Terminating {
			return fmt.Errorf("%s: impossible worker %+v", StateVariable, w)
		}
	}
	return nil
}

// Argv0 is what the program was called by when it was started first: after a
// hot restart os.Args[0] holds the master's title. It takes the value of
// StateVariable.
func Argv0(variable string) (string, error) {
	s, _, err := readState(variable)
	if err != nil {
		return "", err
	}
	return s.Argv0, nil
}

// FilesBefore are the Options.Files of the program that was here before. It takes
// the value of StateVariable.
func FilesBefore(variable string) []string {
	s, _, err := readState(variable)
	if err != nil {
		return nil
	}
	return s.Files
}

// Rollback executes the program again that has left the state, because this one
// cannot take over. It is for callers of New that fail before they come to it;
// New does it itself. It returns only if that fails as well, with both errors.
func Rollback(variable string, cause error) error {
	s, fd, err := readState(variable)
	if err != nil {
		return errors.Join(cause, err)
	}
	if s.rolledBack != "" {
		return fmt.Errorf("%w; this is the program from before, executed again because the next one could not take over: %s",
			cause, s.rolledBack)
	}
	reason := strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, cause.Error())
	argv := append([]string{padTitle(s.Argv0)}, os.Args[1:]...)
	env := append(without(os.Environ(), StateVariable), unheard(), fmt.Sprintf("%s=%d %s", StateVariable, fd, reason))
	return errors.Join(cause, s.execute(syscall.Exec, fd, s.Programs[s.Target].Exe, argv, env))
}

// execute replaces this process's program by another one, which finds all
// descriptors of the state open. It returns only if it fails.
func (s *state) execute(exec func(string, []string, []string) error, fd, exe int, argv, env []string) error {
	// Nobody starts a process meanwhile, which would inherit everything.
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	if err := s.closeOnExec(false); err != nil {
		return err
	}
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
	err := exec(fmt.Sprintf("/proc/self/fd/%d", exe), argv, env)
	_ = s.closeOnExec(true)
	unix.CloseOnExec(fd)
	return fmt.Errorf("cannot execute the program: %w", err)
}
