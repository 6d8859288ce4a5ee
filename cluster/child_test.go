package cluster

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/catamount-server/catamount/internal/page"
	"github.com/catamount-server/catamount/worker"
)

// The test program is also the program that masters start: with an Inheritance
// in its environment it behaves as the file behaviour in its working directory
// says, one word a line.
func TestMain(m *testing.M) {
	if text, ok := os.LookupEnv(worker.InheritanceVariable); ok {
		os.Exit(childMain(text))
	}
	if text, ok := os.LookupEnv(masterVariable); ok {
		os.Exit(masterMain(text))
	}
	os.Exit(m.Run())
}

// behaviourFile is what children look at when they start.
const behaviourFile = "behaviour"

// fakeChild is a process that a master has started.
type fakeChild struct {
	worker.Inheritance
	pipe      *os.File
	behaviour string
}

// does reports whether the child shall do something: "word", or "word@index".
func (f *fakeChild) does(word string) bool {
	for _, w := range strings.Fields(f.behaviour) {
		if w == word || w == fmt.Sprintf("%s@%d", word, f.Index) {
			return true
		}
	}
	return false
}

func (f *fakeChild) say(kind worker.Kind, value int, text string) {
	line := worker.Message{Kind: kind, PID: os.Getpid(), Value: value, Text: text}.Append(nil)
	_, _ = f.pipe.Write(line)
}

func childMain(text string) int {
	in, err := worker.ParseInheritance(text)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitProtocol
	}
	for fd := 3; fd < 64; fd++ {
		unix.CloseOnExec(fd)
	}
	behaviour, _ := os.ReadFile(behaviourFile)
	f := &fakeChild{Inheritance: in, pipe: os.NewFile(uintptr(in.Pipe), "pipe"), behaviour: string(behaviour)}
	switch {
	case f.does("die"):
		return 7
	case f.does("silent"):
		select {}
	case f.does("garbage"):
		fmt.Fprintln(f.pipe, "\x00\x01 this is no message")
		select {}
	case f.does("version"):
		f.say(worker.KindHello, 99, "")
		select {}
	}
	f.say(worker.KindHello, worker.Protocol, "")
	if f.does("fail") {
		f.say(worker.KindFailed, f.Index, "the database is down")
		return exitBoot
	}
	switch in.Role {
	case worker.RoleCheck:
		if f.does("refuse") {
			f.say(worker.KindFailed, 0, "unknown key \"wokers\"")
			return exitConfig
		}
		return 0
	case worker.RolePreload:
		return f.preload()
	}
	return f.work()
}

func (f *fakeChild) preload() int {
	if f.does("panic") {
		panic("no data")
	}
	if _, err := unix.Write(f.Preload, []byte(f.behaviour+"preloaded")); err != nil {
		return exitBoot
	}
	if f.does("unsealed") {
		return 0
	}
	if _, err := unix.FcntlInt(uintptr(f.Preload), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL); err != nil {
		return exitBoot
	}
	return 0
}

// work serves, over net/http, who it is.
func (f *fakeChild) work() int {
	shared, err := page.Open(f.Page, f.layout())
	if err != nil {
		f.say(worker.KindFailed, f.Index, err.Error())
		return exitBoot
	}
	slot := shared.Slot(f.Index)
	slot.State.Store(uint32(page.Live))
	terms := make(chan os.Signal, 8)
	signal.Notify(terms, syscall.SIGTERM)
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	quits := make(chan os.Signal, 8)
	signal.Notify(quits, syscall.SIGQUIT)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		slot.Served.Add(1)
		fmt.Fprintf(w, "worker %d phase %d pid %d env %s", f.Index, f.Phase, os.Getpid(), os.Getenv("GOMAXPROCS"))
	})}
	for _, l := range f.Listeners {
		file := os.NewFile(uintptr(l.FD), l.Bind)
		listener, err := net.FileListener(file)
		if err != nil {
			f.say(worker.KindFailed, f.Index, err.Error())
			return exitBoot
		}
		go server.Serve(listener)
	}
	var dumped atomic.Bool
	go func() {
		for range quits {
			dumped.Store(true)
			fmt.Fprintf(os.Stderr, "stacks of worker %d\n", f.Index)
		}
	}()
	gone := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.NewFile(uintptr(f.Check), "check"))
		close(gone)
	}()
	f.say(worker.KindBoot, f.Index, "")
	tick := time.NewTicker(20 * time.Millisecond)
	for {
		select {
		case <-tick.C:
			if f.does("mute") && !(f.does("recover") && dumped.Load()) {
				continue
			}
			f.say(worker.KindPing, f.Index, "")
		case <-terms:
			if f.does("stay") {
				continue
			}
			if slot.Command.Load() == uint32(page.NoCommand) {
				f.say(worker.KindExternalTerm, f.Index, "")
			}
			f.say(worker.KindTerm, f.Index, "")
			server.Close()
			return 0
		case <-gone:
			return 0
		}
	}
}

// release makes a directory in which children behave in a certain way.
func release(t *testing.T, behaviour string) string {
	t.Helper()
	dir := t.TempDir()
	setBehaviour(t, dir, behaviour)
	return dir
}

func setBehaviour(t *testing.T, dir, behaviour string) {
	t.Helper()
	if err := os.WriteFile(dir+"/"+behaviourFile, []byte(behaviour), 0o644); err != nil {
		t.Fatal(err)
	}
}

// get asks a server who serves; a new connection each time.
func get(addr net.Addr) (string, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialer(addr)}, Timeout: 10 * time.Second}
	resp, err := client.Get("http://test/")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return string(text), err
}

func kill(pid int) error { return syscall.Kill(pid, syscall.SIGKILL) }

// layout is what the program keeps in the shared page.
func (f *fakeChild) layout() page.Layout {
	layout := page.Layout{StatsBytes: 64, Fingerprint: 1}
	if f.does("layout") {
		layout.Fingerprint = 2
	}
	return layout
}
