package worker

import (
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

// watchSignals deals with the signals of a child, all but SIGTERM. Those that a
// terminal sends to the whole group of the master are caught and dropped. Not
// ignored: the programs that the application starts would inherit that.
func (l *Link) watchSignals() {
	others := make(chan os.Signal, 1)
	signal.Notify(others, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTTIN, syscall.SIGTTOU)
	quit := make(chan os.Signal, 1)
	signal.Notify(quit, syscall.SIGQUIT)
	go func() { // ends with the process
		for range quit {
			_, _ = os.Stderr.Write(AllStacks(maxStacks))
		}
	}()
}

// maxStacks bounds a dump: with a hundred thousand goroutines it would hold
// everybody up for seconds.
const maxStacks = 16 << 20

// AllStacks returns what all goroutines of this process do, most bytes of it or
// somewhat more.
func AllStacks(most int) []byte {
	for size := 256 << 10; ; size *= 2 {
		buffer := make([]byte, size)
		if n := runtime.Stack(buffer, true); n < size || size >= most {
			return append(buffer[:n], '\n')
		}
	}
}
