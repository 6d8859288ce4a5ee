package parser

import (
	"encoding/binary"
	"math/bits"
)

// Sets of bytes, as bits of charSets.
const (
	tokenChar = 1 << iota // tchar, RFC 9110 section 5.6.2
	hostChar              // of a reg-name, RFC 3986 section 3.2.2, but '%'
	valueChar             // field-vchar, SP and HTAB, RFC 9110 section 5.5
)

const (
	alphanumeric = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	tokenMarks   = "!#$%&'*+-.^_`|~"
	hostMarks    = "!$&'()*+,-.;=_~"
)

var charSets = newCharSets()

func newCharSets() (sets [256]uint8) {
	for _, c := range []byte(alphanumeric + tokenMarks) {
		sets[c] |= tokenChar
	}
	for _, c := range []byte(alphanumeric + hostMarks) {
		sets[c] |= hostChar
	}
	for c := range sets {
		if c >= ' ' && c != 0x7f || c == '\t' {
			sets[c] |= valueChar
		}
	}
	return sets
}

func isToken(c byte) bool { return charSets[c]&tokenChar != 0 }

// ValidToken reports whether s is a token (RFC 9110 section 5.6.2), as methods
// and field names must be.
func ValidToken(s string) bool {
	for i := range len(s) {
		if !isToken(s[i]) {
			return false
		}
	}
	return s != ""
}

// ValidFieldValue reports whether s can stand in a field line: no CR, LF, NUL
// or other control character but HTAB. Bytes from 0x80 on are accepted, and so
// is whitespace at the ends, which a recipient strips (RFC 9110 section 5.5).
func ValidFieldValue(s string) bool {
	i := 0
	for ; i+8 <= len(s); i += 8 {
		if hasControl(stringWord(s, i)) && !validShort(s[i:i+8]) {
			return false
		}
	}
	return validShort(s[i:])
}

func validShort(s string) bool {
	for i := range len(s) {
		if charSets[s[i]]&valueChar == 0 {
			return false
		}
	}
	return true
}

// The functions below look at eight bytes at a time. In each word the test
// sets the high bit of every byte looked for; a borrow can set it wrongly only
// above a byte found rightly, so the lowest one is exact.
const (
	eachByte = 0x0101010101010101 // times a byte: that byte in all eight places
	highBits = 0x80 * eachByte
)

// word returns b[i:i+8] with the first byte lowest. The bounds are written so
// that the compiler need not think of an empty slice.
func word(b []byte, i int) uint64 { return binary.LittleEndian.Uint64(b[i : i+8 : i+8]) }

// stringWord is word for a string.
func stringWord(s string, i int) uint64 {
	s = s[i : i+8]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// hasControl reports whether one of eight bytes is a control character, HTAB and
// DEL included.
func hasControl(w uint64) bool {
	below := w - ' '*eachByte
	del := (w ^ 0x7f*eachByte) - eachByte
	return (below|del)&^w&highBits != 0
}

// indexControl returns the index at or after i of the first control character
// of b (HTAB and DEL included), len(b) if there is none.
func indexControl(b []byte, i int) int {
	for ; i+8 <= len(b); i += 8 {
		w := word(b, i)
		below := w - ' '*eachByte
		del := (w ^ 0x7f*eachByte) - eachByte
		found := (below | del) & ^w & highBits
		if found != 0 {
			return i + bits.TrailingZeros64(found)>>3
		}
	}
	for ; i < len(b); i++ {
		if b[i] < ' ' || b[i] == 0x7f {
			break
		}
	}
	return i
}

// indexTargetStop returns the index at or after i of the first byte of b that
// is not plainly part of a request target: at most '#' (so control characters
// and SP, but '!' and '"' too), '?' or DEL. It is len(b) if there is none.
func indexTargetStop(b []byte, i int) int {
	for ; i+8 <= len(b); i += 8 {
		w := word(b, i)
		below := w - ('#'+1)*eachByte
		// '?' and DEL differ in one bit, which is cleared.
		questionOrDel := (w&^(0x40*eachByte) ^ '?'*eachByte) - eachByte
		found := (below | questionOrDel) & ^w & highBits
		if found != 0 {
			return i + bits.TrailingZeros64(found)>>3
		}
	}
	for ; i < len(b); i++ {
		if b[i] <= '#' || b[i] == '?' || b[i] == 0x7f {
			break
		}
	}
	return i
}

// indexNameEnd returns the index at or after i of the first byte of b that is
// no token character, len(b) if there is none.
func indexNameEnd(b []byte, i int) int {
	for i < len(b) && isToken(b[i]) {
		i++
	}
	return i
}

// colonInWord returns the place of the first ':' in eight bytes, 8 if there is
// none.
func colonInWord(w uint64) int {
	w ^= ':' * eachByte
	return bits.TrailingZeros64((w-eachByte)&^w&highBits) >> 3
}

// indexColon returns the index at or after i of the first ':' of b. It looks
// at whole words only, and returns -1 when it finds none in them.
func indexColon(b []byte, i int) int {
	for ; i+8 <= len(b); i += 8 {
		if n := colonInWord(word(b, i)); n < 8 {
			return i + n
		}
	}
	return -1
}

// trimOWS returns the bounds of b[start:end] without SP and HTAB at its ends.
func trimOWS(b []byte, start, end int) (int, int) {
	for start < end && isOWS(b[start]) {
		start++
	}
	for start < end && isOWS(b[end-1]) {
		end--
	}
	return start, end
}

func isOWS(c byte) bool { return c == ' ' || c == '\t' }
