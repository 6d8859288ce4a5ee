package preload

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// childVariable makes the test program one of children, with memory behind
// descriptor 3.
const childVariable = "CATAMOUNT_PRELOAD_CHILD"

var children = map[string]func() error{
	"fill":  fillInChild,
	"map":   mapInChild,
	"write": writeInChild,
}

func TestMain(m *testing.M) {
	name := os.Getenv(childVariable)
	if name == "" {
		os.Exit(m.Run())
	}
	if err := children[name](); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// childBytes is what the children fill, besides a little.
const childBytes = 256 << 20

// fillInChild is what a process does that preloads.
func fillInChild() error {
	b, err := NewBuilder(3)
	if err != nil {
		return err
	}
	w, err := b.Create("large")
	if err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(i * i)
	}
	for range childBytes / len(block) {
		if _, err := w.Write(block); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	if err := PutSlice(b, "points", []point{{X: 1}, {X: 2}}); err != nil {
		return err
	}
	return b.Seal()
}

// mapped is what a child says that has mapped the memory.
type mapped struct {
	Opened time.Duration // what that took
	Sum    uint32
	Pss    int // of the whole process, in bytes
	GC     time.Duration
}

// mapInChild is what a worker does; it reads everything.
func mapInChild() error {
	start := time.Now()
	d, err := Open(3)
	if err != nil {
		return err
	}
	if _, err := Slice[point](d, "points"); err != nil {
		return err
	}
	p, err := d.Bytes("large")
	if err != nil {
		return err
	}
	report := mapped{Opened: time.Since(start), Sum: checksum(p)}
	if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
		return err
	}
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil { // all have read everything
		return err
	}
	start = time.Now()
	debug.FreeOSMemory() // which collects garbage first
	report.GC = time.Since(start)
	if report.Pss, err = pss(); err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// pss is the proportional set size of this process: of each page its share.
func pss() (int, error) {
	text, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(text) {
		if fields := strings.Fields(string(line)); fields[0] == "Pss:" {
			kilobytes, err := strconv.Atoi(fields[1])
			return kilobytes << 10, err
		}
	}
	return 0, fmt.Errorf("no Pss in %s", text)
}

// writeInChild writes to what is shared.
func writeInChild() error {
	d, err := Open(3)
	if err != nil {
		return err
	}
	p, err := d.Bytes("x")
	if err != nil {
		return err
	}
	p[0] = 'y'
	return fmt.Errorf("this process goes on, and reads %q", p)
}

func command(name string, memory *os.File) *exec.Cmd {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), childVariable+"="+name)
	c.ExtraFiles = []*os.File{memory}
	return c
}

// TestFourProcesses is the purpose of it all: four processes with 256 MiB that
// one has filled pay for them once, and have them at once.
func TestFourProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("fills 256 MiB")
	}
	if available(t) < 3*childBytes {
		t.Skip("not enough memory")
	}
	memory := os.NewFile(uintptr(newMemory(t)), "memory")
	defer memory.Close()
	start := time.Now()
	if output, err := command("fill", memory).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	t.Logf("filled and sealed by another process in %v", time.Since(start))

	const processes = 4
	var inputs []io.WriteCloser
	var outputs []*json.Decoder
	for range processes {
		c := command("map", memory)
		c.Stderr = os.Stderr
		input, err1 := c.StdinPipe()
		output, err2 := c.StdoutPipe()
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			input.Close()
			if err := c.Wait(); err != nil {
				t.Error(err)
			}
		})
		inputs, outputs = append(inputs, input), append(outputs, json.NewDecoder(bufio.NewReader(output)))
	}
	reports := make([]mapped, processes)
	for i, output := range outputs {
		if err := output.Decode(&reports[i]); err != nil {
			t.Fatal(err)
		}
		if reports[i].Sum != reports[0].Sum || reports[i].Sum == 0 {
			t.Errorf("process %d has read something else", i)
		}
	}
	opened := func(a, b mapped) int { return cmp.Compare(a.Opened, b.Opened) }
	// The quickest: on a busy machine the others may have had to wait for their turn.
	if least := slices.MinFunc(reports, opened).Opened; least > 50*time.Millisecond {
		t.Errorf("they needed %v to have the data", least)
	}
	total := 0
	for i, output := range outputs {
		if _, err := io.WriteString(inputs[i], "\n"); err != nil {
			t.Fatal(err)
		}
		if err := output.Decode(&reports[i]); err != nil {
			t.Fatal(err)
		}
		total += reports[i].Pss
		t.Logf("process %d: opened in %v, %d MiB PSS, garbage collection in %v", i, reports[i].Opened, reports[i].Pss>>20, reports[i].GC)
	}
	const most = childBytes + processes*15<<20
	t.Logf("%.1f MiB PSS in all, of which are shared %d", float64(total)/(1<<20), childBytes>>20)
	if total > most && !raceDetector {
		t.Errorf("%d MiB PSS in all, want %d at most", total>>20, most>>20)
	}
	if total < childBytes {
		t.Errorf("%d MiB PSS in all: nobody has read everything", total>>20)
	}
}

// available is how much memory there is.
func available(t *testing.T) int64 {
	t.Helper()
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	return int64(info.Freeram+info.Bufferram) * int64(info.Unit)
}

// TestWriting: a process that writes to what is shared ends, and the others see
// nothing of it.
func TestWriting(t *testing.T) {
	d := preloaded(t, func(b *Builder) error { return b.Put("x", []byte("x")) })
	fd, err := unix.FcntlInt(uintptr(d.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	memory := os.NewFile(uintptr(fd), "memory")
	defer memory.Close()
	c := command("write", memory)
	output, err := c.CombinedOutput()
	if err == nil || !strings.Contains(string(output), "unexpected fault address") || !strings.Contains(string(output), "writeInChild") {
		t.Errorf("%v: %.300s", err, output)
	}
	status, _ := c.ProcessState.Sys().(syscall.WaitStatus)
	if c.ProcessState.ExitCode() != 2 {
		t.Errorf("it ended with %v", status)
	}
	if s, _ := d.String("x"); s != "x" {
		t.Errorf("here is %q now", s)
	}

	// The same within a process that wants to know.
	defer func() {
		if p := recover(); p == nil || !strings.Contains(fmt.Sprint(p), "invalid memory address") {
			t.Errorf("the panic is %v", p)
		}
	}()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	p, err := d.Bytes("x")
	if err != nil {
		t.Fatal(err)
	}
	p[0] = 'y'
	t.Error("writing succeeds")
}

func BenchmarkOpen(b *testing.B) {
	d := preloaded(b, func(builder *Builder) error { return builder.Put("large", make([]byte, 64<<20)) })
	for b.Loop() {
		other, err := mapData(d.fd)
		if err != nil {
			b.Fatal(err)
		}
		_ = other.unmap()
	}
}
