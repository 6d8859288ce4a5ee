package parser

import "math/bits"

// Known identifies a common header name, whatever its case on the wire.
// KnownNone, the zero value, stands for all other names.
type Known uint8

// String returns the canonical spelling of the name ("Content-Type"), empty
// for KnownNone.
func (k Known) String() string {
	if k >= NumKnown {
		return ""
	}
	return knownNames[k]
}

const (
	maxKnownName = 32 // longest name a knownEntry has room for

	// knownHash was found by trying random odd numbers until no two names
	// shared a slot. TestKnownTable fails when a new name needs another one.
	knownHash     = 0x7ef072cfda185ffb
	knownRotate   = 23
	knownSlotBits = 10

	lowerCaseBits = 0x2020202020202020
)

// knownEntry is a name in lower case, cut into words in the order in which they
// are compared: its first eight bytes, its last eight, then those from byte 8
// and from byte 16. Unused words are zero.
type knownEntry struct {
	words  [4]uint64
	length uint8
}

type knownTable struct {
	slots   [1 << knownSlotBits]Known
	entries [NumKnown]knownEntry
}

var knownHeaders = newKnownTable()

func newKnownTable() (t knownTable) {
	for k := KnownNone + 1; k < NumKnown; k++ {
		var lower [maxKnownName]byte
		n := copy(lower[:], knownNames[k])
		for i, c := range lower[:n] {
			if 'A' <= c && c <= 'Z' {
				lower[i] = c | 0x20
			}
		}
		first, last := endWords(lower[:n])
		e := &t.entries[k]
		e.length = uint8(n)
		e.words[0], e.words[1] = first, last
		if n > 16 {
			e.words[2] = word(lower[:], 8)
		}
		if n > 24 {
			e.words[3] = word(lower[:], 16)
		}
		t.slots[knownSlot(first, last, n)] = k
	}
	return t
}

// endWords returns the first and the last eight bytes of name, which overlap
// when it is shorter than 16 bytes. Both are the whole name, padded with zeros,
// when it is shorter than eight.
func endWords(name []byte) (first, last uint64) {
	if n := len(name); n >= 8 {
		return word(name, 0), word(name, n-8)
	}
	for i, c := range name {
		first |= uint64(c) << (8 * i)
	}
	return first, first
}

func knownSlot(first, last uint64, n int) uint64 {
	first |= lowerCaseBits
	last |= lowerCaseBits
	return ((first ^ bits.RotateLeft64(last, knownRotate)) + uint64(n)) * knownHash >> (64 - knownSlotBits)
}

// lookupKnown returns the Known for name. A result other than KnownNone also
// says that name is a token: it has been compared with one, byte by byte.
func lookupKnown(name []byte) Known {
	first, last := endWords(name)
	return matchKnown(name, first, last)
}

func matchKnown(name []byte, first, last uint64) Known {
	k := knownHeaders.slots[knownSlot(first, last, len(name))]
	e := &knownHeaders.entries[k]
	if int(e.length) != len(name) || !sameWord(first, e.words[0]) || !sameWord(last, e.words[1]) {
		return KnownNone
	}
	if len(name) > 16 && !sameWord(word(name, 8), e.words[2]) ||
		len(name) > 24 && !sameWord(word(name, 16), e.words[3]) {
		return KnownNone
	}
	return k
}

// sameWord reports whether eight bytes of a name are those of a lower-case one.
// Only letters may differ in case; they are recognised by bit 0x40, which '-'
// and digits lack. (Lowering them too would take a CR for a '-'.)
func sameWord(word, lower uint64) bool {
	return word|lower>>1&lowerCaseBits == lower
}

// scanName looks at the name that begins at buf[i]. It returns the index of the
// colon behind it, or -1 when there is no colon yet, or something that is no
// token before it.
func scanName(buf []byte, i int) (colon int, known Known) {
	if i+8 > len(buf) {
		return -1, KnownNone
	}
	first := word(buf, i)
	if n := colonInWord(first); n < 8 {
		// The name is in the word already: cut off the rest.
		colon = i + n
		first &= 1<<(8*n) - 1
		known = matchKnown(buf[i:colon], first, first)
	} else {
		colon = indexColon(buf, i+8)
		if colon < 0 {
			return -1, KnownNone
		}
		known = matchKnown(buf[i:colon], first, word(buf, colon-8))
	}
	if known == KnownNone && (colon == i || indexNameEnd(buf, i) != colon) {
		return -1, KnownNone
	}
	return colon, known
}
