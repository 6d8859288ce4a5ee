package catamount_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain looks for goroutines and descriptors that the tests left behind.
func TestMain(m *testing.M) {
	if text := os.Getenv(appVariable); text != "" {
		os.Exit(runApp(text))
	}
	if name := os.Getenv(childVariable); name != "" {
		if err := runChild(name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	before := openDescriptors()
	code := m.Run()
	if code == 0 {
		if found := leaks(before); found != "" {
			fmt.Fprintf(os.Stderr, "FAIL: left behind by the tests:\n%s", found)
			code = 1
		}
	}
	os.Exit(code)
}

// leaks waits for those that have been told to end.
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
	var stray strings.Builder
	for i, stack := range strings.Split(stacks(), "\n\n") {
		if i > 0 && !isDefaultPool(stack) { // the first is the caller's own
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

// newDescriptors leaves out what the runtime opens for its own poller.
func newDescriptors(before map[string]string) string {
	var found strings.Builder
	for fd, target := range openDescriptors() {
		if before[fd] != target && target != "anon_inode:[eventpoll]" && target != "anon_inode:[eventfd]" {
			fmt.Fprintf(&found, "descriptor %s: %s\n", fd, target)
		}
	}
	return found.String()
}
