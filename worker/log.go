package worker

import (
	"context"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// eventLog hands log lines to one goroutine. The reactor must not wait for a
// stalled log (a full pipe behind stdout has frozen many a server), so lines
// that find the queue full are counted and dropped, and the count is logged.
// Floods are thinned: of lines with the same event and peer one a period is
// written, with the number left out.
type eventLog struct {
	logger  *slog.Logger
	queue   chan logLine
	dropped atomic.Uint64
	total   *atomic.Uint64 // of dropped, never set back
	done    chan struct{}
	stop    sync.Once
	quit    chan struct{}
	// ended: the goroutine takes no more lines, so whoever has one writes it:
	// handlers that have taken their connection over outlive the server.
	ended atomic.Bool
	late  sync.Mutex // who writes then
}

// limitKey is what makes two lines the same for the flood limit.
type limitKey struct {
	event  string
	detail string
	peer   [16]byte
}

type logLine struct {
	level   slog.Level
	key     limitKey
	message string
	args    []any
	call    func() // instead of a line
}

const (
	logQueue = 512
	// logPeriod is how often the same event of the same peer is written.
	logPeriod = time.Second
	// logKeys bounds the memory for the flood limit; beyond it everything new
	// shares one key.
	logKeys = 4096
)

func newEventLog(logger *slog.Logger, dropped *atomic.Uint64) *eventLog {
	l := &eventLog{logger: logger, total: dropped, queue: make(chan logLine, logQueue), done: make(chan struct{}), quit: make(chan struct{})}
	go l.run()
	return l
}

func (l *eventLog) info(key limitKey, message string, args ...any) {
	l.put(logLine{level: slog.LevelInfo, key: key, message: message, args: args})
}

func (l *eventLog) warn(key limitKey, message string, args ...any) {
	l.put(logLine{level: slog.LevelWarn, key: key, message: message, args: args})
}

func (l *eventLog) error(key limitKey, message string, args ...any) {
	l.put(logLine{level: slog.LevelError, key: key, message: message, args: args})
}

func (l *eventLog) handlerPanic(x *exchange, v any, stack []byte) {
	l.error(limitKey{event: "panic", detail: x.request.URL.Path}, "handler panicked", "peer", x.request.RemoteAddr, "method", x.request.Method,
		"path", x.request.URL.Path, "panic", panicValue(v), "stack", string(stack))
}

// later calls f on the log's goroutine: a function of the application's, for
// which nobody waits.
func (l *eventLog) later(f func()) { l.queueUp(logLine{call: f}) }

func (l *eventLog) put(line logLine) {
	if l.logger.Enabled(context.Background(), line.level) {
		l.queueUp(line)
	}
}

func (l *eventLog) queueUp(line logLine) {
	select {
	case l.queue <- line:
	default:
		l.dropped.Add(1)
		l.total.Add(1)
	}
	if l.ended.Load() {
		l.writeLate()
	}
}

// writeLate writes what is queued, on whatever goroutine. It may be called by
// what it writes: then the line waits for the caller to go on.
func (l *eventLog) writeLate() {
	for len(l.queue) > 0 && l.late.TryLock() {
		select {
		case line := <-l.queue:
			if line.call != nil {
				l.call(line.call)
			} else {
				l.write(line)
			}
		default:
		}
		l.late.Unlock()
	}
}

// close writes what is queued and ends the goroutine.
func (l *eventLog) close() { <-l.end() }

// end makes the goroutine write what is queued, and end; then what it returns is
// closed.
func (l *eventLog) end() <-chan struct{} {
	l.stop.Do(func() { close(l.quit) })
	return l.done
}

// lastLines is how long the log may take for what is queued when a process ends
// before its server has.
const lastLines = 5 * time.Second

// EndLog writes what is queued for the log, in at most five seconds. It is for a
// process that is about to end although handlers still run; a server that has
// ended has done it.
func (s *Server) EndLog() {
	select {
	case <-s.log.end():
	case <-time.After(lastLines):
	}
}

// flood is what the limiter remembers of a key.
type flood struct {
	leftOut int
	last    logLine
}

func (l *eventLog) run() {
	defer close(l.done)
	floods := make(map[limitKey]*flood)
	var period <-chan time.Time
	var timer *time.Timer
	for {
		select {
		case line := <-l.queue:
			l.limit(floods, line)
			if period == nil {
				timer = time.NewTimer(logPeriod)
				period = timer.C
			}
		case <-period:
			period = nil
			l.sweep(floods)
			if len(floods) > 0 {
				timer.Reset(logPeriod)
				period = timer.C
			}
		case <-l.quit:
			for {
				select {
				case line := <-l.queue:
					l.limit(floods, line)
				default:
					l.sweep(floods)
					if timer != nil {
						timer.Stop()
					}
					l.ended.Store(true)
					l.writeLate() // what came since the last look
					return
				}
			}
		}
	}
}

func (l *eventLog) limit(floods map[limitKey]*flood, line logLine) {
	if line.call != nil {
		l.call(line.call)
		return
	}
	if len(floods) >= logKeys {
		line.key = limitKey{event: "many"}
	}
	if known := floods[line.key]; known != nil {
		known.leftOut++
		known.last = line
		return
	}
	floods[line.key] = &flood{}
	l.write(line)
}

// call runs a function of the application's.
func (l *eventLog) call(f func()) {
	defer func() {
		if v := recover(); v != nil {
			l.logger.Error("a hook panicked", "panic", panicValue(v), "stack", string(debug.Stack()))
		}
	}()
	f()
}

// sweep ends the period: keys that were quiet are forgotten, of the others the
// last line is written with the number of those left out.
func (l *eventLog) sweep(floods map[limitKey]*flood) {
	for key, known := range floods {
		if known.leftOut == 0 {
			delete(floods, key)
			continue
		}
		line := known.last
		line.args = append(line.args, "left_out", known.leftOut-1)
		*known = flood{}
		l.write(line)
	}
	if n := l.dropped.Swap(0); n > 0 {
		l.logger.Warn("log lines dropped: the log does not keep up", "lines", n)
	}
}

func (l *eventLog) write(line logLine) {
	l.logger.Log(context.Background(), line.level, line.message, line.args...)
}
