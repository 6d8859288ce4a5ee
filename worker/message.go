package worker

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Protocol is the version of what master and worker say to each other: the
// inheritance and the messages. It is in the first message, so that the program
// of one version is never served by a master of another.
const Protocol = 1

// Kind of a message from a worker to its master; the letters are Puma's where
// Puma has the message.
type Kind byte

const (
	KindHello        Kind = 'h' // the first message: Value is the Protocol
	KindBoot         Kind = 'b' // it serves now
	KindPing         Kind = 'p' // it is alive; statistics are in the shared page
	KindTerm         Kind = 't' // it leaves
	KindExternalTerm Kind = 'e' // somebody else told it to leave
	KindIdle         Kind = 'i' // it has had no request for a while: Text is how long, for time.ParseDuration
	KindFailed       Kind = 'f' // it cannot boot: Text says why
)

// Message is one line that a worker, or another process that the master has
// started, writes to its pipe. A line fits a pipe's atomic write.
type Message struct {
	Kind  Kind
	PID   int
	Value int    // of a hello the protocol, of others the worker's index
	Text  string // one line
}

// maxMessage is what a pipe takes in one piece (PIPE_BUF).
const maxMessage = 4096

// Append appends the message as a line. A text that is too long is cut.
func (m Message) Append(line []byte) []byte {
	start := len(line)
	line = append(line, byte(m.Kind))
	line = strconv.AppendInt(line, int64(m.PID), 10)
	line = append(line, ':')
	line = strconv.AppendInt(line, int64(m.Value), 10)
	if m.Text != "" {
		text := strings.Map(func(r rune) rune {
			if r < ' ' {
				return ' '
			}
			return r
		}, m.Text)
		if room := maxMessage - 2 - (len(line) - start); len(text) > room {
			text = text[:room]
		}
		line = append(line, ' ')
		line = append(line, text...)
	}
	return append(line, '\n')
}

// errMessage: a line is no message.
var errMessage = errors.New("no message of a worker's")

// ParseMessage reads one line, without its line feed.
func ParseMessage(line []byte) (Message, error) {
	if len(line) == 0 || !bytes.ContainsRune([]byte("hbpteif"), rune(line[0])) {
		return Message{}, fmt.Errorf("%w: %s", errMessage, quote(line))
	}
	head, text, _ := strings.Cut(string(line[1:]), " ")
	pid, value, ok := strings.Cut(head, ":")
	m := Message{Kind: Kind(line[0]), Text: text}
	var err1, err2 error
	m.PID, err1 = strconv.Atoi(pid)
	m.Value, err2 = strconv.Atoi(value)
	if !ok || err1 != nil || err2 != nil || m.PID <= 0 || m.Value < 0 {
		return Message{}, fmt.Errorf("%w: %s", errMessage, quote(line))
	}
	return m, nil
}

// quote shows the start of bytes that somebody else has sent.
func quote(line []byte) string {
	const most = 64
	if len(line) > most {
		return strconv.QuoteToASCII(string(line[:most])) + "…"
	}
	return strconv.QuoteToASCII(string(line))
}
