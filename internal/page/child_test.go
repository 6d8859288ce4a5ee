package page

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
)

// childVariable makes the test program one of children, on the page behind
// descriptor 3.
const childVariable = "CATAMOUNT_PAGE_CHILD"

var children = map[string]func(*Page) error{
	"add":     addInChild,
	"insert":  insertInChild,
	"limiter": limitInChild,
	"serve":   serveInChild,
}

var testLayout = Layout{StatsBytes: 64, Fingerprint: 0xf00d}

func TestMain(m *testing.M) {
	name := os.Getenv(childVariable)
	if name == "" {
		os.Exit(m.Run())
	}
	p, err := Open(3, testLayout)
	if err == nil {
		err = children[name](p)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// child is such a process, seen from the test.
type child struct {
	*exec.Cmd
	input  io.WriteCloser
	output *bufio.Reader
}

// startChild runs a child until its input ends, at the end of the test at the
// latest.
func startChild(t *testing.T, name string, p *Page) *child {
	t.Helper()
	c := &child{Cmd: exec.Command(os.Args[0])}
	c.Env = append(os.Environ(), childVariable+"="+name)
	c.ExtraFiles = []*os.File{os.NewFile(uintptr(dup(t, p.FD())), "page")}
	defer c.ExtraFiles[0].Close()
	c.Stderr = os.Stderr
	output, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.output = bufio.NewReader(output)
	if c.input, err = c.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	return c
}

// line is the next line that the child writes.
func (c *child) line(t *testing.T) string {
	t.Helper()
	line, err := c.output.ReadString('\n')
	if err != nil {
		t.Fatalf("the child says %q: %v", line, err)
	}
	return line[:len(line)-1]
}

// end ends the child in an orderly way.
func (c *child) end(t *testing.T) {
	t.Helper()
	c.input.Close()
	rest, _ := io.ReadAll(c.output)
	if err := c.Wait(); err != nil {
		t.Errorf("the child ended with %v, and said %q", err, rest)
	}
}

func (c *child) kill() {
	_ = c.Process.Kill()
	_ = c.Wait()
}

// awaitEnd is how a child waits for the end of its input.
func awaitEnd() { _, _ = io.Copy(io.Discard, os.Stdin) }
