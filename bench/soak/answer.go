package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// want is what an answer has to be.
type want struct {
	method string
	status int
	fields map[string]string // "" is: must not be there
	text   string            // the body, where there is no content
	body   *content
}

// errCut: the connection ended before an answer was complete.
var errCut = errors.New("the answer is cut")

// errWrong: an answer is there and not what it should be. No delay explains it.
var errWrong = errors.New("wrong")

// errBeforeAnswer: the connection ended before the answer began.
var errBeforeAnswer = errors.New("the connection ended without an answer")

// readAnswer reads one answer and checks every byte. closing says that the
// server has announced to close.
func (c *conn) readAnswer(w *want) (closing bool, err error) {
	response, err := c.readHead(w.method)
	if err != nil {
		return false, err
	}
	body := io.Reader(response.Body)
	if response.StatusCode != w.status {
		text, _ := io.ReadAll(io.LimitReader(body, 200))
		err := fmt.Errorf("status %d %.100q, want %d", response.StatusCode, text, w.status)
		if response.StatusCode != http.StatusRequestTimeout {
			err = fmt.Errorf("%w: %w", errWrong, err)
		}
		return response.Close, err
	}
	for name, value := range w.fields {
		if got := response.Header.Values(name); value == "" && len(got) > 0 || value != "" && (len(got) != 1 || got[0] != value) {
			return response.Close, fmt.Errorf("%w: field %s is %.100q, want %q", errWrong, name, got, value)
		}
	}
	if w.method == http.MethodHead {
		return response.Close, nil
	}
	if w.body == nil {
		text, err := io.ReadAll(io.LimitReader(body, int64(len(w.text))+200))
		if err == nil && string(text) != w.text {
			err = fmt.Errorf("%w: body %.100q, want %q", errWrong, text, w.text)
		}
		return response.Close, cut(err)
	}
	check := &checker{want: *w.body}
	if _, err := io.Copy(check, body); err != nil {
		return response.Close, cut(fmt.Errorf("after %d bytes: %w", check.offset, err))
	}
	return response.Close, check.whole()
}

// readHead reads up to the body of the next final answer.
func (c *conn) readHead(method string) (*http.Response, error) {
	for {
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, err := c.reader.Peek(1); err != nil {
			if isClosed(err) {
				return nil, fmt.Errorf("%w: %w", errBeforeAnswer, err)
			}
			return nil, err
		}
		response, err := http.ReadResponse(c.reader, &http.Request{Method: method})
		if err != nil {
			return nil, cut(err)
		}
		if response.StatusCode != http.StatusContinue {
			return response, nil
		}
	}
}

func cut(err error) error {
	if err != nil && isClosed(err) {
		return fmt.Errorf("%w: %w", errCut, err)
	}
	return err
}
