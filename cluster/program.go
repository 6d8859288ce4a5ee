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
	// directory is where its processes run, without symbolic links.
	directory string
	// page is where its workers have their slots.
	page *sharedPage
	// proven: a worker of it has booted.
	proven bool
	// failures counts the workers that failed to boot during its restart.
	failures int
}

// openProgram opens the program that is at the path now.
func openProgram(path, directory string, phase int) (*program, error) {
	resolved, err := filepath.EvalSymlinks(directory)
	if err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("program %s: %w", path, err)
	}
	if err := unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("program %s: %w", path, err)
	}
	return &program{phase: phase, exe: fd, preload: -1, directory: resolved}, nil
}

func (p *program) close() {
	_ = unix.Close(p.exe)
	if p.preload >= 0 {
		_ = unix.Close(p.preload)
	}
	p.exe, p.preload = -1, -1
}

// preloadBytes is how much memory the workers of the phase share.
func (p *program) preloadBytes() int64 {
	var stat unix.Stat_t
	if p.preload < 0 || unix.Fstat(p.preload, &stat) != nil {
		return 0
	}
	return stat.Size
}
