package catamount

import (
	"context"
	"log/slog"
	"time"

	"github.com/catamount-server/catamount/worker"
)

// requestLog returns what logs each request (Puma's commonlogger.rb): one record,
// once its handler has returned and before its answer is sent. Queries are left out: they may
// hold what should not be in a log.
func requestLog(logger *slog.Logger) func(*worker.AccessRecord) {
	return func(r *worker.AccessRecord) {
		logger.LogAttrs(context.Background(), slog.LevelInfo, "request",
			slog.String("peer", r.Peer), slog.String("method", r.Method), slog.String("path", r.Path), slog.String("proto", r.Proto),
			slog.Int("status", r.Status), slog.Int64("bytes", r.Bytes),
			slog.Float64("ms", float64(r.Duration)/float64(time.Millisecond)),
			slog.Float64("queue_ms", float64(r.Queue)/float64(time.Millisecond)))
	}
}
