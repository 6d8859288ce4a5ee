package process

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	BeRole(map[string]Role{
		"echo": func(spec []byte, in io.Reader, out io.Writer) error {
			os.Stdout.WriteString("a banner\n") // must not be taken for an answer
			if err := Reply(out, string(spec)); err != nil {
				return err
			}
			for words := bufio.NewScanner(in); words.Scan(); {
				if words.Text() == "silence" {
					continue
				}
				if err := Reply(out, words.Text()); err != nil {
					return err
				}
			}
			return nil
		},
		"failing": func([]byte, io.Reader, io.Writer) error { return errors.New("on purpose") },
	})
	os.Exit(m.Run())
}

func TestChild(t *testing.T) {
	child, err := StartRole(ServerSide, "echo", "echo", map[string]int{"n": 1})
	if err != nil {
		t.Fatal(err)
	}
	var text string
	if err := child.Receive(&text); err != nil || text != `{"n":1}` {
		t.Errorf("it got %q, error %v", text, err)
	}
	if err := child.Ask("word", &text); err != nil || text != "word" {
		t.Errorf("%q, error %v", text, err)
	}
	child.Tell("silence")
	if err := child.ReceiveWithin(&text, 10*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), "echo") {
		t.Errorf("a child that says nothing: error %v", err)
	}
	if err := child.Stop(); err != nil {
		t.Error(err)
	}
}

func TestChildThatFails(t *testing.T) {
	for _, role := range []string{"failing", "unknown"} {
		child, err := StartRole(LoadSide, role, role, nil)
		if err != nil {
			t.Fatal(err)
		}
		var text string
		if err := child.Receive(&text); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: error %v", role, err)
		}
		if err := child.Stop(); err == nil {
			t.Errorf("%s ended well", role)
		}
	}
}

// TestStartOn: a process runs where its side is, and this one stays.
func TestStartOn(t *testing.T) {
	before := Processors()
	if len(before) < 2 {
		t.Skip("one processor: all share it")
	}
	cmd := exec.Command("sh", "-c", "grep Cpus_allowed_list /proc/self/status")
	var out strings.Builder
	cmd.Stdout = &out
	if err := StartOn(LoadSide, cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	var processor int
	if n, err := fmt.Sscanf(out.String(), "Cpus_allowed_list: %d\n", &processor); n != 1 || err != nil || processor != before[LoadSide] {
		t.Errorf("it ran on %q, want %d", out.String(), before[LoadSide])
	}
	if after := Processors(); len(after) != len(before) {
		t.Errorf("this process may use %v, before %v", after, before)
	}
}
