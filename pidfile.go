package catamount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// ownFile is a file that tells others of this process: the pidfile and the state
// file. It stays open and locked while the process lives, so that a second one
// is refused, and one that was left behind by a process that was killed is in
// nobody's way.
type ownFile struct {
	path string
	file *os.File
}

// writePidfile creates or takes over the file at path, with the process's id.
func writePidfile(path string) (*ownFile, error) {
	return writeOwn(path, 0o644, fmt.Appendf(nil, "%d\n", os.Getpid()))
}

// stateHead is how a state file begins.
const stateHead = "---\npid: "

// writeState creates or takes over the state file, in Puma's format: what a
// control program needs to find the server. Nobody else may read it.
func writeState(path string) (*ownFile, error) {
	directory, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	return writeOwn(path, 0o600, fmt.Appendf(nil, stateHead+"%d\nrunning_from: %q\n", os.Getpid(), directory))
}

func writeOwn(path string, mode os.FileMode, text []byte) (*ownFile, error) {
	path, err := filepath.Abs(path) // Directory may change the place later
	if err != nil {
		return nil, err
	}
	if p := createOwn(path, mode, text); p != nil {
		return p, nil
	}
	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, mode)
		if err != nil {
			return nil, err
		}
		if err := flock(file); err != nil {
			file.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return nil, fmt.Errorf("%s: a process is using it (pid %s)", path, pidIn(path))
			}
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if !isFileAt(file, path) { // its last owner has removed it meanwhile
			file.Close()
			continue
		}
		p := &ownFile{path, file}
		if err := p.write(mode, text); err != nil {
			file.Close()
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return p, nil
	}
}

// createOwn makes a file that was not there: it gets its name when it has its
// text and its lock, so that who waits for the file finds an id in it. Nil if
// there is one of that name, or it cannot be done that way.
func createOwn(path string, mode os.FileMode, text []byte) *ownFile {
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	file, err := os.OpenFile(fmt.Sprintf("%s.%d", path, os.Getpid()), os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return nil
	}
	defer os.Remove(file.Name())
	p := &ownFile{path, file}
	if flock(file) != nil || p.write(mode, text) != nil || os.Link(file.Name(), path) != nil {
		file.Close()
		return nil
	}
	return p
}

// pidIn is the process's id in a file of either kind.
func pidIn(path string) string {
	text, _ := os.ReadFile(path)
	pid, _, _ := strings.Cut(strings.TrimPrefix(string(text), stateHead), "\n")
	return pid
}

// write never leaves the file empty: who looks at it finds an id.
func (p *ownFile) write(mode os.FileMode, text []byte) error {
	if mode == 0o600 { // one that was left behind may have been for everybody
		if err := p.file.Chmod(mode); err != nil {
			return err
		}
	}
	if _, err := p.file.WriteAt(text, 0); err != nil {
		return err
	}
	return p.file.Truncate(int64(len(text)))
}

// remove removes the file, unless somebody has put another one there.
func (p *ownFile) remove() {
	if isFileAt(p.file, p.path) {
		_ = os.Remove(p.path)
	}
	p.file.Close()
}

// files are the pidfile and the state file that the configuration names.
func (l *Launcher) files() (paths []string) {
	for _, path := range []string{l.config.Pidfile, l.config.StateFile} {
		if path == "" {
			continue
		}
		if path, err := filepath.Abs(path); err == nil {
			paths = append(paths, path)
		}
	}
	return paths
}

// removeOthers removes those of the files that the program before a hot restart
// had in this process which are not among the present one's.
func removeOthers(before, present []string) {
	for _, path := range before {
		if slices.Contains(present, path) || pidIn(path) != strconv.Itoa(os.Getpid()) {
			continue
		}
		file, err := os.Open(path)
		if err != nil {
			continue
		}
		p := &ownFile{path, file}
		if flock(file) != nil { // it has another name, or another owner
			file.Close()
			continue
		}
		p.remove()
	}
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
