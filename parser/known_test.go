package parser

import (
	"bytes"
	"net/textproto"
	"strings"
	"testing"
)

func TestKnownTable(t *testing.T) {
	for k := KnownNone + 1; k < NumKnown; k++ {
		name := k.String()
		if len(name) > maxKnownName || name != textproto.CanonicalMIMEHeaderKey(name) {
			t.Errorf("%q is too long or not canonical", name)
		}
		if strings.Trim(name, "-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
			t.Errorf("sameWord is wrong about %q", name)
		}
		for _, spelling := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
			if got := lookupKnown([]byte(spelling)); got != k {
				t.Errorf("%s is taken for %q: knownHash needs another value", spelling, got)
			}
			for _, behind := range []string{":", ": ", ":a:b\r\n", ": 1234567890"} {
				colon, got := scanName([]byte(spelling+behind), 0)
				if colon == -1 && len(spelling+behind) < len(spelling)+8 {
					continue
				}
				if colon != len(spelling) || got != k {
					t.Errorf("scanName(%q) = %d, %v", spelling+behind, colon, got)
				}
			}
		}
		if got := lookupKnown([]byte(name + "x")); got == k {
			t.Errorf("%sx is taken for it", name)
		}
		// No other byte anywhere may be taken for the right one.
		for i := range name {
			for c := range 256 {
				other := []byte(name)
				other[i] = byte(c)
				if want := bytes.EqualFold(other, []byte(name)) && c < 0x80; (lookupKnown(other) == k) != want {
					t.Errorf("%q is taken for %q", other, lookupKnown(other))
				}
			}
		}
	}
	if KnownNone.String() != "" || Known(255).String() != "" || lookupKnown(nil) != KnownNone {
		t.Error("there is a name for none")
	}
}

func TestFoldedToken(t *testing.T) {
	for _, lower := range []string{"close", "chunked", "keep-alive", "100-continue", "upgrade"} {
		token := newFoldedToken(lower)
		if !token.is([]byte(lower)) || !token.is([]byte(strings.ToUpper(lower))) {
			t.Errorf("%s is not itself", lower)
		}
		if token.is([]byte(lower[1:])) || token.is([]byte(lower+"x")) || token.is(nil) {
			t.Errorf("%s is more than itself", lower)
		}
		for i := range lower {
			for c := range 256 {
				other := []byte(lower)
				other[i] = byte(c)
				if want := c < 0x80 && bytes.EqualFold(other, []byte(lower)); token.is(other) != want {
					t.Errorf("%q is taken for %s", other, lower)
				}
			}
		}
	}
}
