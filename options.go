package catamount

import (
	"fmt"
	"log/slog"
	"math"
	"os"
	"time"

	"github.com/catamount-server/catamount/worker"
)

// Validate checks the fields; its error names the field and the reason.
func (s *Server) Validate() error {
	_, err := s.options()
	return err
}

// options translates the fields, with the defaults filled in.
func (s *Server) options() (worker.Options, error) {
	queue := s.QueueRequests == nil || *s.QueueRequests
	keepAlive := queue
	if s.EnableKeepAlives != nil {
		keepAlive = *s.EnableKeepAlives
	}
	o := worker.Options{
		Handler: s.Handler, Logger: s.Logger,
		MinThreads: s.MinThreads, MaxThreads: orDefault(s.MaxThreads, DefaultMaxThreads),
		QueueRequests: queue, KeepAlive: keepAlive,
		MaxKeepAlive: max(s.MaxKeepAlive, 0), MaxFastInline: orDefault(s.MaxFastInline, DefaultMaxFastInline),
		MaxBacklog: max(s.MaxBacklog, 0), MaxQueueWait: max(s.MaxQueueWait, 0),
		RetryAfter: orDefault(s.RetryAfter, DefaultRetryAfter), HandlerTimeout: max(s.HandlerTimeout, 0),
		Limits:     s.Limits,
		BodyMemory: limit(s.BodyMemory, DefaultBodyMemory), BodyDirectory: s.BodyDirectory,
		BodyMemoryTotal:   max(orDefault(s.BodyMemoryTotal, DefaultBodyMemoryTotal), 0),
		OutputMemory:      limit(s.OutputMemory, DefaultOutputMemory),
		OutputMemoryTotal: limit(s.OutputMemoryTotal, DefaultOutputMemoryTotal),
		OutputFile:        max(orDefault(s.OutputFile, DefaultOutputFile), 0), OutputFileTotal: limit(s.OutputFileTotal, DefaultOutputFileTotal),
		OnWriteFailure: s.OnWriteFailure,
		HeapFloor:      max(orDefault(s.HeapFloor, DefaultHeapFloor), 0),
		StreamRequest:  s.StreamRequest,
		AppOptions:     s.DisableGeneralOptionsHandler,
		Liveness: worker.Liveness{
			ProbeAfter: s.TCPKeepAlive.Idle, ProbeInterval: s.TCPKeepAlive.Interval, ProbeCount: s.TCPKeepAlive.Count,
			Unacknowledged: timeout(s.TCPUserTimeout, DefaultTCPUserTimeout),
		},
		Timeouts: worker.Timeouts{
			FirstByte: s.firstByteTimeout(),
			Head:      timeout(s.ReadHeaderTimeout, DefaultReadHeaderTimeout),
			Request:   timeout(s.ReadTimeout, 0),
			BodyIdle:  timeout(s.BodyIdleTimeout, DefaultBodyIdleTimeout),
			BodyGrace: timeout(s.BodyGrace, DefaultBodyGrace), BodyMinRate: rate(s.BodyMinRate, DefaultBodyMinRate),
			Idle:           timeout(s.IdleTimeout, DefaultIdleTimeout),
			AdvertisedIdle: s.advertisedIdle(),
			Write:          timeout(s.WriteTimeout, 0),
			WriteGrace:     timeout(s.WriteGrace, DefaultWriteGrace), WriteMinRate: rate(s.WriteMinRate, DefaultWriteMinRate),
			Linger: timeout(s.LingerTimeout, DefaultLingerTimeout),
		},
	}
	if live := &o.Liveness; live.ProbeAfter >= 0 {
		live.ProbeAfter = orDefault(live.ProbeAfter, DefaultProbeAfter)
		live.ProbeInterval = orDefault(live.ProbeInterval, DefaultProbeInterval)
		live.ProbeCount = orDefault(live.ProbeCount, DefaultProbeCount)
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if s.MaxHeaderBytes != 0 {
		o.Limits.Head = s.MaxHeaderBytes
	}
	if s.MaxBodyBytes != 0 {
		o.Limits.Body = s.MaxBodyBytes
	}
	return o, s.check(&o)
}

// firstByteTimeout follows a shortened time for heads or requests: who allows
// five seconds for a request does not want to wait thirty for its first byte.
func (s *Server) firstByteTimeout() time.Duration {
	first := timeout(s.FirstByteTimeout, DefaultFirstByteTimeout)
	if s.FirstByteTimeout == 0 {
		for _, d := range []time.Duration{s.ReadHeaderTimeout, s.ReadTimeout} {
			if d > 0 {
				first = min(first, d)
			}
		}
	}
	return first
}

// advertisedIdle follows a shortened IdleTimeout: what is announced keeps its
// distance of ten seconds, or a fifth.
func (s *Server) advertisedIdle() time.Duration {
	if s.AdvertisedIdle != 0 || s.IdleTimeout == 0 {
		return timeout(s.AdvertisedIdle, DefaultAdvertisedIdle)
	}
	if s.IdleTimeout < 0 {
		return DefaultAdvertisedIdle
	}
	return min(DefaultAdvertisedIdle, max(s.IdleTimeout-10*time.Second, s.IdleTimeout*4/5))
}

func (s *Server) check(o *worker.Options) error {
	wrong := func(field, format string, args ...any) error {
		return fmt.Errorf("catamount: Server.%s: %s", field, fmt.Sprintf(format, args...))
	}
	switch {
	case s.MinThreads < 0:
		return wrong("MinThreads", "%d is negative", s.MinThreads)
	case s.MaxThreads < 0:
		return wrong("MaxThreads", "%d is negative", s.MaxThreads)
	case o.MinThreads > o.MaxThreads:
		return wrong("MinThreads", "%d is more than MaxThreads (%d)", o.MinThreads, o.MaxThreads)
	case s.TCPKeepAlive.Interval < 0:
		return wrong("TCPKeepAlive.Interval", "%v is negative", s.TCPKeepAlive.Interval)
	case s.TCPKeepAlive.Count < 0 || s.TCPKeepAlive.Count > 127:
		return wrong("TCPKeepAlive.Count", "%d is not between 0 and 127", s.TCPKeepAlive.Count)
	case s.TCPKeepAlive.Idle > 32767*time.Second || s.TCPKeepAlive.Interval > 32767*time.Second:
		return wrong("TCPKeepAlive", "Idle and Interval are at most 32767 s")
	case o.MaxFastInline < 1:
		return wrong("MaxFastInline", "%d is less than 1", s.MaxFastInline)
	case s.BodyMemoryTotal > 0 && s.BodyMemoryTotal < 1<<20: // a quarter of less is not one block
		return wrong("BodyMemoryTotal", "%d bytes are less than 1 MiB", s.BodyMemoryTotal)
	case s.MaxQueueWait > 0 && s.MaxQueueWait < time.Millisecond: // 5 where 5*time.Second was meant would refuse all
		return wrong("MaxQueueWait", "%v is less than 1 ms", s.MaxQueueWait)
	case s.HandlerTimeout > 0 && s.HandlerTimeout < time.Millisecond:
		return wrong("HandlerTimeout", "%v is less than 1 ms", s.HandlerTimeout)
	case s.RetryAfter < 0:
		return wrong("RetryAfter", "%v is negative", s.RetryAfter)
	case o.Timeouts.Idle > 0 && s.AdvertisedIdle > 0 && o.Timeouts.AdvertisedIdle >= o.Timeouts.Idle:
		return wrong("AdvertisedIdle", "%v must be shorter than IdleTimeout (%v): clients would send into closing connections", o.Timeouts.AdvertisedIdle, o.Timeouts.Idle)
	}
	if s.BodyDirectory != "" {
		if info, err := os.Stat(s.BodyDirectory); err != nil {
			return fmt.Errorf("catamount: Server.BodyDirectory: %w", err)
		} else if !info.IsDir() {
			return wrong("BodyDirectory", "%s is not a directory", s.BodyDirectory)
		}
	}
	return nil
}

func orDefault[T int | int64 | time.Duration](value, fallback T) T {
	if value == 0 {
		return fallback
	}
	return value
}

// limit: negative is no limit.
func limit[T int | int64](value, fallback T) T {
	if value < 0 {
		return math.MaxInt
	}
	return orDefault(value, fallback)
}

// rate: negative is off, which is 0 below.
func rate(value, fallback int) int { return max(orDefault(value, fallback), 0) }

// timeout: negative is off, which is 0 below.
func timeout(value, fallback time.Duration) time.Duration {
	if value == 0 {
		return fallback
	}
	return max(value, 0)
}
