package catamount

import (
	"errors"
	"testing"
	"time"

	"github.com/catamount-server/catamount/cluster"
)

// TestConfigDefaults: what depends on other fields.
func TestConfigDefaults(t *testing.T) {
	for _, c := range []struct {
		name       string
		config     Config
		maxWorkers int
		grace      time.Duration
	}{
		{"nothing", Config{}, 8, 10 * time.Second},
		{"few workers", Config{Workers: 3}, 8, 10 * time.Second},
		{"some workers", Config{Workers: 10}, 20, 10 * time.Second},
		{"so many that twice as many cannot be", Config{Workers: 100}, cluster.MostWorkers, 10 * time.Second},
		{"little time to end", Config{WorkerShutdownTimeout: 6 * time.Second}, 8, 2 * time.Second},
		{"all the time to end", Config{WorkerShutdownTimeout: -1}, 8, 10 * time.Second},
		{"a grace of its own", Config{WorkerShutdownTimeout: 6 * time.Second, StreamGrace: 5 * time.Second}, 8, 5 * time.Second},
	} {
		r, err := c.config.resolve()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if r.MaxWorkers != c.maxWorkers || r.StreamGrace != c.grace {
			t.Errorf("%s: MaxWorkers %d, StreamGrace %v, want %d and %v", c.name, r.MaxWorkers, r.StreamGrace, c.maxWorkers, c.grace)
		}
	}
}

// TestConfigErrors: each is a ConfigError with the name of its field, those of
// the server too.
func TestConfigErrors(t *testing.T) {
	for field, c := range map[string]Config{
		"Workers":     {Workers: cluster.MostWorkers + 1},
		"MaxWorkers":  {Workers: 1, MaxWorkers: cluster.MostWorkers + 1},
		"StreamGrace": {StreamGrace: time.Minute},
		"Server":      {Server: &Server{MaxThreads: -1}},
	} {
		err := c.Validate()
		if wrong, ok := errors.AsType[*ConfigError](err); !ok || wrong.Field != field {
			t.Errorf("%s: error %v", field, err)
		}
	}
}
