package parser

// parseFields goes on up to the end of the head. It returns false when it could
// not: h.state is then stateFailed, or says where to go on.
//
// When a line is whole its cases fall through from the first to the last: each
// byte of a name is looked at once or twice, each byte of a value once. There
// is no search for the end of the line, because the first control character of
// a value is that end or an error.
func (h *Head) parseFields(buf []byte, limits *Limits) bool {
	i, start := int(h.pos), int(h.mark)
	name, known := h.name, h.known
	state := h.state
	for {
		switch state {
		case stateFieldStart:
			if i == len(buf) {
				return h.wait(stateFieldStart, i, i)
			}
			switch buf[i] {
			case '\r':
				i++
				state = stateLastLF
				continue
			case ' ', '\t':
				return h.fail(ReasonObsFold, "")
			}
			if over(len(h.Fields)+1, limits.HeaderCount) {
				return h.fail(ReasonTooManyFields, "")
			}
			start = i
			fallthrough

		case stateFieldName:
			colon := -1
			if i == start {
				colon, known = scanName(buf, i)
			}
			if colon < 0 || over(colon-start, limits.HeaderName) {
				var ok bool
				if colon, known, ok = h.parseFieldName(buf, start, i, limits); !ok {
					return false
				}
			}
			i = colon
			name = span(start, i)
			i++
			fallthrough

		case stateFieldSpace:
			for i < len(buf) && isOWS(buf[i]) {
				i++
			}
			if i == len(buf) {
				h.name, h.known = name, known
				return h.wait(stateFieldSpace, i, i)
			}
			start = i
			fallthrough

		case stateFieldValue:
			i = indexControl(buf, i)
			for i < len(buf) && buf[i] == '\t' {
				i = indexControl(buf, i+1)
			}
			if over(i-start, limits.HeaderValue) {
				return h.fail(ReasonFieldValueTooLong, detail(name.In(buf)))
			}
			if i == len(buf) {
				h.name, h.known = name, known
				return h.wait(stateFieldValue, i, start)
			}
			if buf[i] != '\r' {
				return h.failValue(buf[i], name.In(buf))
			}
			i++
			fallthrough

		case stateFieldLF:
			if i == len(buf) {
				h.name, h.known = name, known
				return h.wait(stateFieldLF, i, start)
			}
			if buf[i] != '\n' {
				return h.fail(ReasonBareCR, detail(name.In(buf)))
			}
			end := i - 1
			for end > start && isOWS(buf[end-1]) {
				end--
			}
			h.Fields = append(h.Fields, Field{Name: name, Value: span(start, end), Known: known})
			if known-1 < lastExamined && !h.examine(known, buf, start, end) {
				return false
			}
			i++
			state = stateFieldStart

		case stateLastLF:
			if i == len(buf) {
				return h.wait(stateLastLF, i, i)
			}
			if buf[i] != '\n' {
				return h.fail(ReasonBareCR, "")
			}
			h.pos = uint32(i + 1)
			return h.finish(buf, limits)
		}
	}
}

// parseFieldName does what scanName does for a name that is not yet whole, or
// wrong. The name begins at start and is done up to i.
func (h *Head) parseFieldName(buf []byte, start, i int, limits *Limits) (colon int, known Known, ok bool) {
	end := indexNameEnd(buf, i)
	if over(end-start, limits.HeaderName) {
		return 0, 0, h.fail(ReasonFieldNameTooLong, detail(buf[start:start+limits.HeaderName]))
	}
	if end == len(buf) {
		return 0, 0, h.wait(stateFieldName, end, start)
	}
	switch c := buf[end]; {
	case c == ':' && end > start:
		return end, lookupKnown(buf[start:end]), true
	case isOWS(c):
		return 0, 0, h.fail(ReasonSpaceBeforeColon, detail(buf[start:end]))
	case c == '\n':
		return 0, 0, h.fail(ReasonBareLF, detail(buf[start:end]))
	}
	return 0, 0, h.fail(ReasonBadFieldName, detail(buf[start:end+1]))
}

// failValue refuses c, found in the value of name.
func (h *Head) failValue(c byte, name []byte) bool {
	if c == '\n' {
		return h.fail(ReasonBareLF, detail(name))
	}
	return h.fail(ReasonBadFieldValue, detail(name))
}
