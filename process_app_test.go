package catamount_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/catamount-server/catamount"
)

// appVariable makes the test program a Catamount application instead of running
// tests: master, workers and all.
const appVariable = "CATAMOUNT_TEST_APP"

// A deployed program is the test program with some words behind its end, which
// an executable does not mind: what version it is, and how it is broken. That
// way each copy is a program of its own, as after a real deployment, and a
// process can be asked which one it runs.
const versionMark = "\ncatamount-test-version:"

// programVersion reads the words of the running program; "" for the test
// program itself.
func programVersion() string {
	file, err := os.Open("/proc/self/exe")
	if err != nil {
		return ""
	}
	defer file.Close()
	tail := make([]byte, 256)
	if info, err := file.Stat(); err == nil {
		n, _ := file.ReadAt(tail, max(info.Size()-int64(len(tail)), 0))
		tail = tail[:n]
	}
	_, version, _ := bytes.Cut(tail, []byte(versionMark))
	return string(version)
}

// brokenIn reports whether the running program is to fail in that way.
func brokenIn(way string) bool { return strings.Contains(programVersion(), "broken-"+way) }

// appConfig comes to the application as JSON, in appVariable.
type appConfig struct {
	Binds               []string
	Workers, MaxWorkers int
	ShutdownDelay       time.Duration
	WorkerCheckInterval time.Duration
	WorkerTimeout       time.Duration
	Preload             bool
	PreloadMiB          int // how much more is preloaded
	Pidfile, StateFile  string
}

func (c *appConfig) config() catamount.Config {
	return catamount.Config{
		Binds: c.Binds, Workers: c.Workers, MaxWorkers: c.MaxWorkers, ShutdownDelay: c.ShutdownDelay,
		WorkerCheckInterval: c.WorkerCheckInterval, WorkerTimeout: c.WorkerTimeout, Pidfile: c.Pidfile, StateFile: c.StateFile,
	}
}

// runApp is the application's main function.
func runApp(text string) int {
	var how appConfig
	if err := json.Unmarshal([]byte(text), &how); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return catamount.ExitUsage
	}
	config := how.config()
	if brokenIn("exit") {
		return 9
	}
	if strings.Contains(programVersion(), "other-files") {
		config.Pidfile, config.StateFile = config.Pidfile+".2", config.StateFile+".2"
	}
	if brokenIn("config") {
		config.MaxBootFailures = -1
	}
	app := catamount.App{Handler: appHandler, BeforeFork: func() { fmt.Fprintln(os.Stderr, "hook: before fork") }}
	if how.Preload {
		app.Preload = func(_ context.Context, p *catamount.Preloader) error {
			if brokenIn("preload") {
				panic("the catalogue is upside down")
			}
			return errors.Join(p.Put("version", []byte(programVersion())), preloadBulk(p, how.PreloadMiB))
		}
	}
	return catamount.Launch(context.Background(), catamount.Program{Config: config}, app)
}

// whoami is what /whoami answers.
type whoami struct {
	PID, Index, Phase int
	Version           string // of the program
	Preloaded         string // of the program that preloaded
	Hits              uint64 // of all workers, ever
}

func appHandler(w *catamount.Worker) (http.Handler, error) {
	switch {
	case brokenIn("boot-once"):
		return nil, errors.New("no database today")
	case brokenIn("boot-hang"):
		select {}
	}
	hits, err := w.Counter("hits")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	if err := handleBulk(mux, w); err != nil {
		return nil, err
	}
	mux.HandleFunc("/echo", func(rw http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		_, _ = io.Copy(rw, r.Body)
	})
	mux.HandleFunc("/work", func(rw http.ResponseWriter, r *http.Request) {
		timer := time.NewTimer(20 * time.Millisecond)
		defer timer.Stop()
		<-timer.C
		_, _ = io.Copy(rw, r.Body)
	})
	mux.HandleFunc("/whoami", func(rw http.ResponseWriter, r *http.Request) {
		id := whoami{PID: os.Getpid(), Index: w.Index(), Phase: w.Phase(), Version: programVersion(), Hits: hits.Value()}
		if data := w.Preloaded(); data != nil {
			text, err := data.Bytes("version")
			if err != nil {
				http.Error(rw, err.Error(), http.StatusInternalServerError)
				return
			}
			id.Preloaded = string(text)
		}
		_ = json.NewEncoder(rw).Encode(id)
	})
	mux.HandleFunc("/slow", func(rw http.ResponseWriter, r *http.Request) {
		pause, err := time.ParseDuration(r.FormValue("for"))
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		rw.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(rw).Flush()
		timer := time.NewTimer(pause)
		defer timer.Stop()
		<-timer.C
		_, _ = fmt.Fprintf(rw, "%d\n", os.Getpid())
	})
	return mux, nil
}
