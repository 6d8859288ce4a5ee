package proctitle

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const childVariable = "CATAMOUNT_TEST_TITLE"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		child()
		return
	}
	os.Exit(m.Run())
}

// child shows titles and prints what the kernel says of them, and what has
// become of its other words.
func child() {
	t := New("")
	for _, title := range []string{"first title", strings.Repeat("long ", 100), "last"} {
		t.Set(title)
		line, err := os.ReadFile("/proc/self/cmdline")
		if err != nil {
			panic(err)
		}
		os.Stdout.Write(append(bytes.TrimRight(line, "\x00"), '\n'))
	}
	os.Stdout.WriteString(strings.Join(os.Args[1:], ",") + "\n" + os.Getenv(childVariable) + "\n")
}

func TestTitle(t *testing.T) {
	c := exec.Command(os.Args[0], "one", "two")
	c.Env = append(os.Environ(), childVariable+"=three")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got := strings.Split(string(out), "\n")
	if strings.HasSuffix(got[0], "\x00one\x00two") {
		t.Skip("this kernel does not let a process move its command line")
	}
	want := []string{"first title", strings.Repeat("long ", 100)[:Room], "last", "one,two", "three", ""}
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			t.Fatalf("output %q, want %q", got, want)
		}
	}
}

func TestTitleInAWord(t *testing.T) {
	word := string(bytes.Repeat([]byte("w"), 20)) // not a constant, which lies in read-only memory
	title := &Title{memory: []byte(word), blank: ' '}
	title.Set("master")
	if got := string(title.memory); got != "master              " {
		t.Errorf("%q", got)
	}
	title.Set(strings.Repeat("x", 30))
	if got := string(title.memory); got != strings.Repeat("x", 20) {
		t.Errorf("%q", got)
	}
	(&Title{}).Set("nowhere")
}
