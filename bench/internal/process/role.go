package process

import (
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// A Role is the body of a child: spec is JSON, in ends with the parent, and
// out takes lines of JSON.
type Role func(spec []byte, in io.Reader, out io.Writer) error

// BeRole plays the role that StartRole has put into the arguments of this
// program, and ends the program. It returns at once when there is none.
func BeRole(roles map[string]Role) {
	if len(os.Args) != 4 || os.Args[1] != RoleArgument {
		return
	}
	// An interrupt from the terminal reaches all processes. This one ends with its
	// stdin, after its own children.
	signal.Ignore(os.Interrupt)
	out, err := ownOutput()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	role := roles[os.Args[2]]
	if role == nil {
		fmt.Fprintf(os.Stderr, "bench: there is no role %q\n", os.Args[2])
		os.Exit(2)
	}
	if err := role([]byte(os.Args[3]), os.Stdin, out); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %s: %v\n", os.Args[2], err)
		os.Exit(1)
	}
	os.Exit(0)
}

// ownOutput returns the standard output and puts the standard error in its
// place: some servers print banners.
func ownOutput() (*os.File, error) {
	fd, err := unix.FcntlInt(1, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("dup: %w", err)
	}
	if err := unix.Dup3(2, 1, 0); err != nil {
		return nil, fmt.Errorf("dup3: %w", err)
	}
	return os.NewFile(uintptr(fd), "stdout"), nil
}
