package worker

import "net/http"

// plainText is what http.DetectContentType says of text.
const plainText = "text/plain; charset=utf-8"

// detectContentType is http.DetectContentType with a quick way for plain text,
// the most usual small answer: it looks at a hundred signatures in turn, which
// costs more than the rest of the head. None of them can match text whose
// first byte begins none of them; a test compares the two.
func detectContentType(p []byte) string {
	if len(p) > 0 && !beginsSignature[p[0]] && isText(p) {
		return plainText
	}
	return http.DetectContentType(p)
}

// beginsSignature are the first bytes of net/http's signatures, of what it
// skips before "<html", and everything that is not ASCII text.
var beginsSignature = func() (table [256]bool) {
	for i := range table {
		table[i] = i < 0x20 || i > 0x7e
	}
	for _, c := range []byte(" <%BFGIMOPRtwLk") {
		table[c] = true
	}
	return table
}()

// isText reports whether net/http takes p for text: no control byte of a
// binary file, and not the two letters at offset 34 that mark an embedded font.
func isText(p []byte) bool {
	if len(p) > 35 && p[34] == 'L' && p[35] == 'P' {
		return false
	}
	if len(p) > 7 && string(p[4:8]) == "ftyp" {
		return false
	}
	p = p[:min(len(p), 512)]
	for _, c := range p {
		if c < 0x20 && c != '\t' && c != '\n' && c != '\r' && c != '\f' && c != 0x1b {
			return false
		}
	}
	return true
}
