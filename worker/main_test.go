package worker

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// childVariable makes the test program one of the children below instead of
// running tests: for what changes the whole process, such as its limits.
const childVariable = "CATAMOUNT_TEST_CHILD"

var children = map[string]func() error{
	"shortage": shortageChild,
}

func TestMain(m *testing.M) {
	if name := os.Getenv(childVariable); name != "" {
		if err := children[name](); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	// What the runtime opens at first use is no leak.
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
	before := openDescriptors()
	code := m.Run()
	if code == 0 {
		if leaks := leaks(before); leaks != "" {
			fmt.Fprintf(os.Stderr, "FAIL: left behind by the tests:\n%s", leaks)
			code = 1
		}
	}
	os.Exit(code)
}

// leaks returns what there is that was not there before the tests. Those that
// have been told to end may need a moment to do so.
func leaks(before map[string]string) (found string) {
	deadline := time.Now().Add(patience)
	for {
		if found = strayGoroutines() + newDescriptors(before); found == "" || time.Now().After(deadline) {
			return found
		}
		runtime.Gosched()
	}
}

// strayGoroutines returns the stacks of those that nobody ended.
func strayGoroutines() string {
	buffer := make([]byte, 1<<20)
	buffer = buffer[:runtime.Stack(buffer, true)]
	var stray strings.Builder
	for i, stack := range strings.Split(string(buffer), "\n\n") {
		if i > 0 && !isDefaultPool(stack) && !isSignalLoop(stack) { // the first is the caller's own
			stray.WriteString(stack + "\n\n")
		}
	}
	return stray.String()
}

// isDefaultPool recognises the two goroutines of the pool that package ants
// makes for itself when the program starts, which is goroutine 1.
func isDefaultPool(stack string) bool {
	return strings.Contains(stack, "goPurge in goroutine 1\n") || strings.Contains(stack, "goTicktock in goroutine 1\n")
}

// isSignalLoop recognises the goroutine that package os/signal starts once, for
// as long as the process lives: fuzzing does.
func isSignalLoop(stack string) bool { return strings.Contains(stack, "\nos/signal.loop()\n") }

// openDescriptors returns what each descriptor of the process stands for.
func openDescriptors() map[string]string {
	open := make(map[string]string)
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil {
			open[filepath.Base(link)] = target
		}
	}
	return open
}

func newDescriptors(before map[string]string) string {
	var found strings.Builder
	for fd, target := range openDescriptors() {
		if before[fd] != target && target != "anon_inode:[eventpoll]" && target != "anon_inode:[eventfd]" {
			fmt.Fprintf(&found, "descriptor %s: %s\n", fd, target)
		}
	}
	return found.String()
}
