package catamount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// pidfile is a file with the process's id in it. It stays open and locked while
// the process lives, so that a second one is refused, and one that was left
// behind by a process that was killed is in nobody's way.
type pidfile struct {
	path string
	file *os.File
}

// writePidfile creates or takes over the file at path.
func writePidfile(path string) (*pidfile, error) {
	path, err := filepath.Abs(path) // Directory may change the place later
	if err != nil {
		return nil, err
	}
	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, err
		}
		if err := flock(file); err != nil {
			pid, _ := os.ReadFile(path)
			file.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return nil, fmt.Errorf("%s: a process is using it (pid %s)", path, strings.TrimSpace(string(pid)))
			}
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if !isFileAt(file, path) { // its last owner has removed it meanwhile
			file.Close()
			continue
		}
		p := &pidfile{path, file}
		if err := p.write(); err != nil {
			file.Close()
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return p, nil
	}
}

// write never leaves the file empty: who looks at it finds an id.
func (p *pidfile) write() error {
	text := fmt.Appendf(nil, "%d\n", os.Getpid())
	if _, err := p.file.WriteAt(text, 0); err != nil {
		return err
	}
	return p.file.Truncate(int64(len(text)))
}

// remove removes the file, unless somebody has put another one there.
func (p *pidfile) remove() {
	if isFileAt(p.file, p.path) {
		_ = os.Remove(p.path)
	}
	p.file.Close()
}

func flock(file *os.File) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var lockErr error
	if err := raw.Control(func(fd uintptr) { lockErr = syscall.Flock(int(fd), syscall.LOCK_EX|syscall.LOCK_NB) }); err != nil {
		return err
	}
	return lockErr
}

func isFileAt(file *os.File, path string) bool {
	open, err1 := file.Stat()
	named, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(open, named)
}

// writeState writes the state file, in Puma's format: what a control program
// needs to find the server. Nobody else may read it.
func writeState(path string) (remove func(), err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	directory, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return nil, err
	}
	defer file.Close()
	_, err = fmt.Fprintf(file, "---\npid: %d\nrunning_from: \"%s\"\n", os.Getpid(), directory)
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		_ = os.Remove(file.Name())
		return nil, err
	}
	return func() { _ = os.Remove(path) }, nil // one that stays is no harm: the pid in it is dead
}
