package serving

import (
	"context"
	"log/slog"
	"strings"
	"sync"
)

// Log keeps what a server logs. It is a slog.Handler for Catamount and an
// io.Writer for net/http.
type Log struct {
	slog.Handler
	mu     sync.Mutex
	text   strings.Builder
	errors []string
}

func newLog() *Log {
	l := &Log{}
	l.Handler = slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug})
	return l
}

// Handle implements slog.Handler.
func (l *Log) Handle(ctx context.Context, record slog.Record) error {
	if record.Level >= slog.LevelError {
		line := record.Message
		record.Attrs(func(a slog.Attr) bool {
			line += " " + a.String()
			return true
		})
		l.mu.Lock()
		l.errors = append(l.errors, line)
		l.mu.Unlock()
	}
	return l.Handler.Handle(ctx, record)
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String returns all lines.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Errors returns the lines at level error.
func (l *Log) Errors() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.errors
}
