package cluster

import (
	"strings"
	"testing"
	"time"
)

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Options)
		want   string // in the error
	}{
		{"good", func(*Options) {}, ""},
		{"no workers", func(o *Options) { o.Workers = 0 }, "Workers is 0, want 1 to 127"},
		{"too many", func(o *Options) { o.Workers, o.MaxWorkers = 128, 128 }, "MaxWorkers is 128, at most 127"},
		{"below the bounds", func(o *Options) { o.MinWorkers = 3 }, "want MinWorkers (3) to MaxWorkers (8)"},
		{"beyond them", func(o *Options) { o.MaxWorkers = 1 }, "want MinWorkers (1) to MaxWorkers (1)"},
		{"nothing to listen on", func(o *Options) { o.Binds = nil }, "no Binds"},
		{"no name", func(o *Options) { o.Argv = []string{} }, "Argv is empty"},
		{"negative", func(o *Options) { o.MaxAge = -time.Second }, "MaxAge is -1s"},
		{"no patience", func(o *Options) { o.WorkerTimeout = 100 * time.Millisecond }, "want more than CheckInterval (100ms)"},
		{"no failures", func(o *Options) { o.MaxBootFailures = -1 }, "MaxBootFailures is -1"},
		{"culling", func(o *Options) { o.Culling = "random" }, `Culling is "random", want "youngest" or "oldest"`},
		{"jitter", func(o *Options) { o.Jitter = 2 }, "Jitter is 2"},
		{"memory", func(o *Options) { o.MaxMemory = -1 }, "MaxMemory is -1"},
		{"two at once", func(o *Options) { o.Binds, o.Jitter = nil, -1 }, "Jitter is -1"},
		{"no such program", func(o *Options) { o.Path = "/nowhere/app" }, "program /nowhere/app: no such file"},
		{"no program", func(o *Options) { o.Path = "/etc/passwd" }, "program /etc/passwd: permission denied"},
		{"no such directory", func(o *Options) { o.Directory = "/nowhere" }, "directory: lstat /nowhere"},
		{"an impossible address", func(o *Options) { o.Binds = []Bind{TCPBind("192.0.2.1", "0")} }, "cannot listen on tcp://192.0.2.1:0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := testOptions(t, t.TempDir())
			c.change(&o)
			cluster, err := New(o)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if err := cluster.Close(); err != nil {
					t.Error(err)
				}
				if err := cluster.Run(t.Context()); err != ErrStopped {
					t.Errorf("Run after Close: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	before := openDescriptors(t)
	o := testOptions(t, t.TempDir())
	o.Path = "/nowhere/app"
	for range 10 {
		_, _ = New(o)
	}
	if after := openDescriptors(t); after > before {
		t.Errorf("%d descriptors are left open", after-before)
	}
}

func TestEnvironmentOfChildren(t *testing.T) {
	o := Options{Env: []string{"A=1", StateVariable + "=7", "CATAMOUNT_INHERITANCE={}", "CATAMOUNT_STATES=x"}}
	if got := strings.Join(o.cleanEnv(), " "); got != "A=1 CATAMOUNT_STATES=x" {
		t.Errorf("got %s", got)
	}
}
