package worker

import (
	"strings"
	"testing"
)

func TestMessages(t *testing.T) {
	for _, m := range []Message{
		{Kind: KindHello, PID: 1, Value: Protocol},
		{Kind: KindBoot, PID: 4711, Value: 3},
		{Kind: KindFailed, PID: 9, Value: 255, Text: `listen tcp: "no": such thing`},
	} {
		line := string(m.Append(nil))
		body, ok := strings.CutSuffix(line, "\n")
		if !ok || strings.Contains(body, "\n") {
			t.Errorf("%v is written as %q, want one line", m, line)
		}
		if got, err := ParseMessage([]byte(body)); err != nil || got != m {
			t.Errorf("ParseMessage(%q) = %v, %v; want %v", body, got, err, m)
		}
	}
}

func TestMessageFitsAPipe(t *testing.T) {
	m := Message{Kind: KindFailed, PID: 1, Text: "two\nlines" + strings.Repeat("x", 2*maxMessage)}
	line := m.Append([]byte("before"))[len("before"):]
	if len(line) > maxMessage || strings.Count(string(line), "\n") != 1 {
		t.Errorf("%d bytes with %d line feeds, want at most %d with one", len(line), strings.Count(string(line), "\n"), maxMessage)
	}
}

func TestNoMessages(t *testing.T) {
	for _, line := range []string{"", "b", "b12", "x1:2", "b0:1", "b-1:1", "b1:-1", "b1:", "b:1", "b1:1x", "GET / HTTP/1.1", "\x00\x01", strings.Repeat("p", 9999)} {
		if m, err := ParseMessage([]byte(line)); err == nil {
			t.Errorf("ParseMessage(%.20q) = %v, want an error", line, m)
		} else if len(err.Error()) > 200 {
			t.Errorf("error of %d bytes", len(err.Error()))
		}
	}
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte("b1:2 x"))
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := ParseMessage(line)
		if err != nil {
			return
		}
		again := m.Append(nil)
		back, err := ParseMessage(again[:len(again)-1])
		if err != nil || back.Kind != m.Kind || back.PID != m.PID || back.Value != m.Value {
			t.Errorf("%q became %v, which became %q and %v, %v", line, m, again, back, err)
		}
	})
}
