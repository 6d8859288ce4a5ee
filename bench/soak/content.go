package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
)

// period is after how many bytes the pattern repeats: a prime, so that a piece
// that is lost, doubled or out of place shows wherever buffers end.
const period = 65521

// pattern is what all bodies are cut from: two periods of it, so that any piece
// of up to one lies in a row.
var pattern = func() []byte {
	b := make([]byte, period, 2*period)
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(b) // never fails
	return append(b, b...)
}()

// content is a body: size bytes of the pattern, from a place that tells bodies
// apart. The other side makes the same from the two numbers.
type content struct{ start, size int }

// piece returns the bytes from offset on, at most limit and at most a period.
func (c content) piece(offset, limit int) []byte {
	at := (c.start + offset) % period
	return pattern[at : at+min(limit, c.size-offset, period)]
}

func (c content) bytes() []byte {
	b := make([]byte, 0, c.size)
	for len(b) < c.size {
		b = append(b, c.piece(len(b), period)...)
	}
	return b
}

// writeTo writes all of it in pieces of the given size.
func (c content) writeTo(w io.Writer, size int) error {
	for offset := 0; offset < c.size; {
		n, err := w.Write(c.piece(offset, max(size, 1)))
		if offset += n; err != nil {
			return err
		}
	}
	return nil
}

// A checker compares what is written to it with a content.
type checker struct {
	want   content
	offset int
}

func (c *checker) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		want := c.want.piece(c.offset, len(p)-done)
		if len(want) == 0 {
			return done, fmt.Errorf("%w: more than the %d bytes of the body: %.40q", errWrong, c.want.size, p[done:])
		}
		got := p[done : done+len(want)]
		if !bytes.Equal(got, want) {
			i := 0
			for got[i] == want[i] {
				i++
			}
			return done, fmt.Errorf("%w: byte %d of %d begins %.40q, want %.40q", errWrong, c.offset+i, c.want.size, got[i:], want[i:])
		}
		c.offset += len(want)
		done += len(want)
	}
	return len(p), nil
}

// whole reports as an error that bytes are missing.
func (c *checker) whole() error {
	if c.offset < c.want.size {
		return fmt.Errorf("%w: %d of %d bytes of the body", errWrong, c.offset, c.want.size)
	}
	return nil
}
