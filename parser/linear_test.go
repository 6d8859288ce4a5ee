package parser

import (
	"strings"
	"testing"
)

// TestByteByByteIsLinear shows that a head that comes in single bytes is not
// looked at again and again. After each byte, those already seen are replaced
// by NULs, which are refused wherever somebody looks at them again. Spared are
// the unfinished name, which is looked up when it ends, and two bytes at the
// end, where whitespace behind a value is found. (Target and values of examined
// fields are looked at once more too when they end. Here only the first two
// lines have such.)
func TestByteByByteIsLinear(t *testing.T) {
	const lines = 1000
	raw := get + host +
		"X-Long: " + strings.Repeat("value ", 10000) + "end\r\n" +
		strings.Repeat("X-Custom: value \r\nUser-Agent: \tx\r\n", lines) + "\r\n"
	buf := []byte(raw)
	spoiled, spared := len(get+host), 0
	var h Head
	for n := 1; n < len(raw); n++ {
		if _, err := h.Parse(buf[:n], nil); err != ErrIncomplete {
			t.Fatalf("after %d bytes: %v", n, err)
		}
		if int(h.pos) != n {
			t.Fatalf("after %d bytes: done with %d", n, h.pos)
		}
		keep := n - 2
		if h.state == stateFieldName {
			keep = int(h.mark)
		}
		for ; spoiled < keep; spoiled++ {
			buf[spoiled] = 0
		}
		spared += n - keep
	}
	n, err := h.Parse(buf, nil)
	if err != nil || n != len(raw) || len(h.Fields) != 2+2*lines {
		t.Fatalf("%d, %v, %d fields", n, err, len(h.Fields))
	}
	for i, f := range h.Fields[2:] {
		line := string(f.Name.In([]byte(raw))) + ":" + string(f.Value.In([]byte(raw)))
		want, known := "X-Custom:value", KnownNone
		if i%2 == 1 {
			want, known = "User-Agent:x", KnownUserAgent
		}
		if line != want || f.Known != known {
			t.Fatalf("field %d is %q, %v", i, line, f.Known)
		}
	}
	if spared > 8*len(raw) {
		t.Errorf("%d bytes were spared for %d", spared, len(raw))
	}
}
