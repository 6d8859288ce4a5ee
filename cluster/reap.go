package cluster

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// deadChild finds a child that has ended, and leaves its status where it is: it
// may be a worker's, which its handle takes, or that of a process that somebody
// else in this program has started and waits for.
func deadChild() (pid int, ok bool) {
	// The kernel's siginfo of a SIGCHLD: three numbers, and from the next
	// multiple of a pointer's size on a union that begins with the pid.
	var info unix.Siginfo
	err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	if err != nil || info.Signo == 0 {
		return 0, false
	}
	offset := (unsafe.Offsetof(info.Code) + 4 + unsafe.Sizeof(uintptr(0)) - 1) &^ (unsafe.Sizeof(uintptr(0)) - 1)
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(&info), offset))), true
}

// isSubreaper: this process has asked to become the parent of its descendants'
// orphans.
func isSubreaper() bool {
	var set int32
	err := unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&set)), 0, 0, 0)
	return err == nil && set != 0
}
