package parser

import (
	"strings"
	"testing"
)

func TestValid(t *testing.T) {
	for c := range 256 {
		s := string([]byte{'a', byte(c), 'b'})
		if got, want := ValidToken(s), tchar(c); got != want {
			t.Errorf("ValidToken(%q) = %v", s, got)
		}
		if got, want := ValidFieldValue(s), c == '\t' || c >= ' ' && c != 0x7f; got != want {
			t.Errorf("ValidFieldValue(%q) = %v", s, got)
		}
		want := c < 0x80 && strings.ContainsRune("!$&'()*+,-.;=_~", rune(c)) || tchar(c) && !strings.ContainsRune("#%^`|", rune(c))
		if ValidHost(s) != want || ValidHost([]byte(s)) != want {
			t.Errorf("ValidHost(%q) = %v", s, !want)
		}
	}
	if ValidToken("") || !ValidFieldValue("") || !ValidHost("") {
		t.Error("an empty string is no token, but a value and a host")
	}
}

// TestWordSearch compares the searches with ones byte by byte, for each byte
// in each place, before and behind others that are found or nearly so.
func TestWordSearch(t *testing.T) {
	searches := []struct {
		name  string
		index func(b []byte, i int) int
		stops func(c byte) bool
	}{
		{"indexControl", indexControl, func(c byte) bool { return c < ' ' || c == 0x7f }},
		{"indexTargetStop", indexTargetStop, func(c byte) bool { return c <= '#' || c == '?' || c == 0x7f }},
	}
	for _, search := range searches {
		for _, filler := range []byte{'a', 0xff, 0x80, '$', '@', '>', '~', 0x00, 0x7f, '!'} {
			for c := range 256 {
				for place := range 19 {
					b := []byte(strings.Repeat("a", place) + string([]byte{byte(c)}) + strings.Repeat(string([]byte{filler}), 18-place))
					for from := range 3 {
						want := from
						for want < len(b) && !search.stops(b[want]) {
							want++
						}
						if got := search.index(b, from); got != want {
							t.Fatalf("%s(%q, %d) = %d, want %d", search.name, b, from, got, want)
						}
					}
				}
			}
		}
	}
	for place := range 20 {
		b := []byte("\xba;9z\x3b\xffabcdefghijklmn")
		b[place] = ':'
		if got := indexColon(b, 0); got != place && (got != -1 || place < 16) {
			t.Errorf("indexColon(%q) = %d", b, got)
		}
	}
}
