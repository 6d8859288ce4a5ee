package serving

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Main runs the tests of a package, which fail when a goroutine or a
// descriptor is left: func TestMain(m *testing.M) { serving.Main(m) }.
func Main(m *testing.M) {
	// The first pipe makes the runtime open descriptors of its own.
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
	goroutines, descriptors := allGoroutines(), allDescriptors()
	code := m.Run()
	if code == 0 {
		if left := goroutines.left() + descriptors.left(); left != "" {
			fmt.Fprintf(os.Stderr, "FAIL: left by the tests:\n%s", left)
			code = 1
		}
	}
	os.Exit(code)
}

// goroutines are the first lines of stacks, "goroutine 17": numbers are not
// used again.
type goroutines map[string]bool

func allGoroutines() goroutines {
	all := make(goroutines)
	for stack := range strings.SplitSeq(Stacks(), "\n\n") {
		all[nameOf(stack)] = true
	}
	return all
}

func nameOf(stack string) string {
	name, _, _ := strings.Cut(stack, " [")
	return name
}

// fresh returns the stacks of those that are new.
func (before goroutines) fresh() string {
	var found strings.Builder
	for stack := range strings.SplitSeq(Stacks(), "\n\n") {
		if !before[nameOf(stack)] {
			found.WriteString(stack + "\n\n")
		}
	}
	return found.String()
}

// left waits for those that are new to end, and returns the stacks of the
// others.
func (before goroutines) left() (stacks string) {
	settle(func() bool {
		stacks = before.fresh()
		return stacks == ""
	})
	return stacks
}

// Stacks returns those of all goroutines.
func Stacks() string {
	for size := 1 << 16; ; size *= 2 {
		buffer := make([]byte, size)
		if n := runtime.Stack(buffer, true); n < size {
			return string(buffer[:n])
		}
	}
}

// descriptors are what each open one stands for.
type descriptors map[string]string

func allDescriptors() descriptors {
	all := make(descriptors)
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil {
			all[filepath.Base(link)] = target
		}
	}
	return all
}

// fresh returns those that are new.
func (before descriptors) fresh() (list string) {
	for number, target := range allDescriptors() {
		if before[number] != target {
			list += fmt.Sprintf("descriptor %s: %s\n", number, target)
		}
	}
	return list
}

// left waits for those that are new to be closed, and returns the others.
func (before descriptors) left() (list string) {
	settle(func() bool {
		list = before.fresh()
		return list == ""
	})
	return list
}

// settle waits for what ends by itself, up to Patience.
func settle(settled func() bool) bool {
	for deadline := time.Now().Add(Patience); !settled(); runtime.Gosched() {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}
