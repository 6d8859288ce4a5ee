package parser

// extensionState says what the next byte of a chunk's extensions belongs to.
// They mean nothing to us, but two servers that read them differently find the
// chunk's data at two places, so they are held to the grammar of RFC 9112
// section 7.1.1: ;name, ;name=token or ;name="quoted", with spaces and tabs
// around the semicolon and the equals sign.
type extensionState uint8

const (
	extensionGap        extensionState = iota // spaces before a semicolon
	extensionStart                            // behind a semicolon
	extensionName                             // in a name
	extensionNameGap                          // spaces behind a name
	extensionValue                            // behind an equals sign
	extensionToken                            // in a value
	extensionQuoted                           // in a quoted value
	extensionEscape                           // behind a backslash in one
	extensionQuotedDone                       // behind a quoted value
)

// mayEnd says whether the chunk line may end here.
func (s extensionState) mayEnd() bool {
	return s == extensionName || s == extensionToken || s == extensionQuotedDone
}

// next is the state behind c, which is no control character but perhaps a tab;
// ok is false when c must not stand here.
func (s extensionState) next(c byte) (_ extensionState, ok bool) {
	space := c == ' ' || c == '\t'
	switch s {
	case extensionQuoted:
		switch c {
		case '"':
			return extensionQuotedDone, true
		case '\\':
			return extensionEscape, true
		}
		return extensionQuoted, true
	case extensionEscape:
		return extensionQuoted, true
	case extensionStart:
		if space {
			return s, true
		}
		return extensionName, isToken(c)
	case extensionValue:
		if space {
			return s, true
		}
		if c == '"' {
			return extensionQuoted, true
		}
		return extensionToken, isToken(c)
	}
	named := s == extensionName || s == extensionNameGap
	switch {
	case c == ';':
		return extensionStart, true
	case c == '=' && named:
		return extensionValue, true
	case space && named:
		return extensionNameGap, true
	case space:
		return extensionGap, true
	}
	return s, (s == extensionName || s == extensionToken) && isToken(c)
}
