package cluster

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// program is what one phase executes. It is held as a descriptor: a worker that
// crashes after a new version was installed comes back as the version of its
// phase, and only a restart opens the path anew.
type program struct {
	phase int
	// exe is the executable (O_PATH), preload the sealed memory of the phase.
	// -1: none.
	exe, preload int
	// directory is where its processes run, as a descriptor as well (O_PATH): a
	// deploy may have taken it away from its name. name is that name, without
	// symbolic links.
	directory int
	name      string
	// page is where its workers have their slots.
	page *sharedPage
	// proven: a worker of it has booted.
	proven bool
	// failures counts the workers that failed to boot during its restart.
	failures int
}

// openProgram opens the program that is at the path now.
func openProgram(path, directory string, phase int) (*program, error) {
	p := &program{phase: phase, exe: -1, preload: -1}
	var err error
	if p.directory, p.name, err = openDirectory(directory); err != nil {
		return nil, err
	}
	if p.exe, err = unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0); err == nil {
		err = unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS)
	}
	if err != nil {
		p.close()
		return nil, fmt.Errorf("program %s: %w", path, err)
	}
	return p, nil
}

func openDirectory(path string) (fd int, name string, err error) {
	if name, err = filepath.EvalSymlinks(path); err != nil {
		return -1, "", fmt.Errorf("directory: %w", err)
	}
	if fd, err = unix.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return -1, "", fmt.Errorf("directory %s: %w", name, err)
	}
	return fd, name, nil
}

func (p *program) close() {
	closeDescriptor(p.exe)
	closeDescriptor(p.preload)
	closeDescriptor(p.directory)
	p.exe, p.preload, p.directory = -1, -1, -1
}

// preloadBytes is how much memory the workers of the phase share.
func (p *program) preloadBytes() int64 {
	var stat unix.Stat_t
	if p.preload < 0 || unix.Fstat(p.preload, &stat) != nil {
		return 0
	}
	return stat.Size
}
