package cluster

import (
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Between two programs of a hot restart nobody listens to signals.
//
// Those of heldSignals are blocked for that time: execve(2) keeps the mask of the
// thread that calls it and what is pending, so that the new program finds them
// when it listens. All its threads inherit the mask, and for itself that does not
// matter: Go's runtime unblocks what signal.Notify is told on a thread of its own.
// Processes that it starts would inherit it as well; therefore Run stays on one
// thread, with nothing blocked, and starts them there.
//
// Go's runtime unblocks those that end a process as soon as it begins. The new
// program listens to them while its packages are initialized, before anything of
// the application's main function: so they count but for the first moments.
// In those TERM and INT end the process, and the workers finish what they have
// begun.

// heldSignals are those that Go's runtime lets a program block.
var heldSignals = []os.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTTIN, syscall.SIGTTOU}

// signalsVariable is the environment variable in which a program that could not
// take over leaves the numbers of the signals that it has got.
const signalsVariable = "CATAMOUNT_SIGNALS"

// earlySignals is where signals go from the first moment of a program on that
// takes over from another one in this process; nil in others.
var earlySignals = listenEarly()

func listenEarly() chan os.Signal {
	if os.Getenv(StateVariable) == "" {
		return nil
	}
	c := make(chan os.Signal, 4*len(masterSignals))
	for number := range strings.FieldsSeq(os.Getenv(signalsVariable)) {
		if n, err := strconv.Atoi(number); err == nil && len(c) < cap(c)/2 {
			c <- syscall.Signal(n)
		}
	}
	_ = os.Unsetenv(signalsVariable)
	takePending(c)
	// Notify unblocks a signal before it has a handler. For these two that would
	// mean the default: the process stops.
	signal.Ignore(syscall.SIGTTIN, syscall.SIGTTOU)
	signal.Notify(c, masterSignals...)
	return c
}

// takePending takes the signals that are blocked and have come.
func takePending(c chan<- os.Signal) {
	set, now := heldSet(), unix.Timespec{}
	for range heldSignals { // of each one is pending at most
		n, _, errno := unix.Syscall6(unix.SYS_RT_SIGTIMEDWAIT,
			uintptr(unsafe.Pointer(set)), 0, uintptr(unsafe.Pointer(&now)), kernelSetBytes, 0, 0)
		if errno != 0 {
			return
		}
		c <- syscall.Signal(n)
	}
}

// unheard is signalsVariable for the program that is executed again, with what
// has come to this one.
func unheard() string {
	signal.Stop(earlySignals)
	value := signalsVariable + "="
	for len(earlySignals) > 0 {
		s := <-earlySignals
		value += strconv.Itoa(int(s.(syscall.Signal))) + " "
	}
	return value
}

// holdSignals blocks heldSignals, on all threads where that is possible, leaves
// those that end the process to the kernel, and drops SIGHUP, which means nothing.
// When it returns, what has come before is in the channels of signal.Notify.
//
// A program with C code in it (net brings some, where there is a C compiler) does
// not know all its threads. There only the calling thread blocks, and what comes
// in the last fraction of a millisecond before execve may still be lost. The
// program after that has them blocked on its threads already.
func holdSignals() (release func()) {
	set := heldSet()
	mask := func(how int) {
		_ = unix.PthreadSigmask(how, set, nil) // the set is sound: it cannot fail
		_, _, _ = syscall.AllThreadsSyscall6(unix.SYS_RT_SIGPROCMASK,
			uintptr(how), uintptr(unsafe.Pointer(set)), 0, kernelSetBytes, 0, 0)
	}
	mask(unix.SIG_BLOCK)
	signal.Reset(syscall.SIGTERM, syscall.SIGINT)
	signal.Ignore(syscall.SIGHUP)
	idle := make(chan os.Signal, 1)
	signal.Notify(idle, syscall.SIGQUIT)
	signal.Stop(idle) // it waits until nothing is on its way to any channel
	return func() { mask(unix.SIG_UNBLOCK) }
}

// allowSignals unblocks heldSignals on the calling thread.
func allowSignals() { _ = unix.PthreadSigmask(unix.SIG_UNBLOCK, heldSet(), nil) }

// kernelSetBytes is the size of a set of signals for the kernel, which is less
// than the C library's.
const kernelSetBytes = 8

func heldSet() *unix.Sigset_t {
	set := new(unix.Sigset_t)
	bits := uint(unsafe.Sizeof(set.Val[0])) * 8
	for _, s := range heldSignals {
		n := uint(s.(syscall.Signal)) - 1
		set.Val[n/bits] |= 1 << (n % bits)
	}
	return set
}
