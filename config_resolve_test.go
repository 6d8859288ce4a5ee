package catamount

import (
	"errors"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/catamount-server/catamount/cluster"
)

// TestAutomaticWorkersKeepTheBounds: the master has resolved the same Config
// with more processors than each of its workers sees, and a worker that refused
// it could not boot.
func TestAutomaticWorkersKeepTheBounds(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, c := range []struct{ processors, low, high, want, wantHigh int }{
		{1, 0, 0, 1, 8},
		{1, 2, 0, 2, 8},
		{8, 0, 4, 4, 4},
		{64, 0, 0, 64, cluster.MostWorkers},
		{200, 0, 0, cluster.MostWorkers, cluster.MostWorkers},
	} {
		runtime.GOMAXPROCS(c.processors)
		r, err := (&Config{Workers: AutoWorkers, MinWorkers: c.low, MaxWorkers: c.high}).resolve()
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		if r.workers != c.want || r.MaxWorkers != c.wantHigh {
			t.Errorf("%+v: %d workers, at most %d", c, r.workers, r.MaxWorkers)
		}
	}
}

func TestBoundsThatNoNumberKeeps(t *testing.T) {
	for _, c := range []struct {
		config Config
		field  string
	}{
		{Config{Workers: AutoWorkers, MaxWorkers: -1}, "MaxWorkers"},
		{Config{Workers: AutoWorkers, MinWorkers: 3, MaxWorkers: 2}, "MinWorkers"},
	} {
		err := c.config.Validate()
		if wrong, ok := errors.AsType[*ConfigError](err); !ok || wrong.Field != c.field {
			t.Errorf("%+v: %v, want an error of %s", c.config, err, c.field)
		}
	}
}

// TestRelativeSockets: the master stays where it was started, while single mode
// goes to Config.Directory; the socket is at the same place in both.
func TestRelativeSockets(t *testing.T) {
	here := t.TempDir()
	t.Chdir(here)
	r, err := (&Config{Binds: []string{"unix://a/b.sock?backlog=5", "unix://@name", "unix:///run/c.sock"}, Directory: "/"}).resolve()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []cluster.Bind{
		{Network: "unix", Address: filepath.Join(here, "a/b.sock"), Backlog: 5},
		{Network: "unix", Address: "@name"},
		{Network: "unix", Address: "/run/c.sock"},
	} {
		if r.binds[i] != want {
			t.Errorf("%+v, want %+v", r.binds[i], want)
		}
	}
	long := "unix://" + strings.Repeat("x", 107)
	if err := (&Config{Binds: []string{long}}).Validate(); err == nil || !strings.Contains(err.Error(), "a socket's may have 107") {
		t.Errorf("a path that is too long from here: %v", err)
	}
}
