package worker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/catamount-server/catamount/internal/page"
)

// threadsVariable is the number of places of a worker below.
const threadsVariable = "CATAMOUNT_TEST_THREADS"

func init() {
	children["worker"] = workerChild
}

// workerChild is a worker with a handler that tells who it is.
func workerChild() error {
	inheritance, err := ParseInheritance(os.Getenv(InheritanceVariable))
	if err != nil {
		return err
	}
	link, err := Attach(inheritance)
	if err != nil {
		return err
	}
	if os.Getenv("CATAMOUNT_TEST_BOOT") == "wait" {
		select {}
	}
	options := testOptions()
	options.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	if threads := os.Getenv(threadsVariable); threads != "" {
		if options.MaxThreads, err = strconv.Atoi(threads); err != nil {
			return err
		}
	}
	options.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d, err := time.ParseDuration(r.URL.Query().Get("sleep")); err == nil {
			time.Sleep(d)
		}
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%d %s", os.Getpid(), body)
	})
	return link.Serve(context.Background(), ServeOptions{
		Options: options, PingInterval: 50 * time.Millisecond,
		StreamGrace: time.Second, OrphanGrace: time.Second,
	})
}

// testMaster is what workers need of a master.
type testMaster struct {
	t        *testing.T
	page     *page.Page
	listener int
	addr     string
	pair     [2]int
}

func newTestMaster(t *testing.T, slots int) *testMaster {
	t.Helper()
	m := &testMaster{t: t}
	var err error
	if m.page, err = page.Create(slots, StatsLayout()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.page.Close() })
	if m.listener, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if m.listener >= 0 {
			syscall.Close(m.listener)
		}
	})
	if err := errors.Join(syscall.SetsockoptInt(m.listener, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1), syscall.Bind(m.listener, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(m.listener, 1024)); err != nil {
		t.Fatal(err)
	}
	m.addr = localAddress(m.listener).(*net.TCPAddr).String()
	if m.pair, err = syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(m.pair[0]); syscall.Close(m.pair[1]) })
	return m
}

// workerProcess is a worker that a testMaster has started.
type workerProcess struct {
	t        *testing.T
	pid      int
	index    int
	messages chan Message // closed with the pipe
	check    *os.File     // closing it is the end of the master
	stderr   string       // a file
	ended    chan syscall.WaitStatus
}

// start starts a worker. change may spoil its inheritance.
func (m *testMaster) start(index int, change func(*Inheritance), env ...string) *workerProcess {
	t := m.t
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var pipe, check [2]int
	if err := errors.Join(syscall.Pipe2(pipe[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK), syscall.Pipe2(check[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK)); err != nil {
		t.Fatal(err)
	}
	w := &workerProcess{t: t, index: index, messages: make(chan Message, 64), ended: make(chan syscall.WaitStatus, 1), stderr: filepath.Join(t.TempDir(), "stderr")}
	stderr, err := os.Create(w.stderr)
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	inheritance := Inheritance{
		Protocol: Protocol, Role: RoleWorker, Index: index, Master: os.Getpid(), Argv0: program,
		Pipe: 3, Check: 4, Page: 5, Preload: -1, HandOver: [2]int{6, 7},
		Listeners: []InheritedListener{{FD: 8, Bind: "tcp://" + m.addr}},
	}
	if change != nil {
		change(&inheritance)
	}
	files := []uintptr{0, 1, stderr.Fd(), uintptr(pipe[1]), uintptr(check[0]), uintptr(m.page.FD()), uintptr(m.pair[0]), uintptr(m.pair[1]), uintptr(m.listener)}
	env = append(env, childVariable+"=worker", InheritanceVariable+"="+inheritance.Encode())
	argv := []string{"worker" + strings.Repeat(" ", 160)}
	w.pid, err = syscall.ForkExec(program, argv, &syscall.ProcAttr{Env: append(os.Environ(), env...), Files: files})
	syscall.Close(pipe[1])
	syscall.Close(check[0])
	if err != nil {
		t.Fatal(err)
	}
	w.check = os.NewFile(uintptr(check[1]), "check")
	go w.readMessages(os.NewFile(uintptr(pipe[0]), "pipe"))
	go func() {
		var status syscall.WaitStatus
		_, _ = syscall.Wait4(w.pid, &status, 0, nil)
		w.ended <- status
	}()
	t.Cleanup(w.kill)
	return w
}

func (w *workerProcess) readMessages(pipe *os.File) {
	defer pipe.Close()
	defer close(w.messages)
	for lines := bufio.NewScanner(pipe); lines.Scan(); {
		m, err := ParseMessage(lines.Bytes())
		if err != nil {
			w.t.Errorf("a worker wrote: %v", err)
			return
		}
		w.messages <- m
	}
}

func (w *workerProcess) kill() {
	_ = syscall.Kill(w.pid, syscall.SIGKILL)
	w.check.Close()
	for range w.messages {
	}
	if w.t.Failed() {
		w.t.Logf("worker %d said:\n%s", w.pid, w.said())
	}
}

func (w *workerProcess) said() string {
	text, _ := os.ReadFile(w.stderr)
	return string(text)
}

// until waits for a message.
func (w *workerProcess) until(kind Kind) Message {
	w.t.Helper()
	for late := time.After(patience); ; {
		select {
		case m, ok := <-w.messages:
			if !ok {
				w.t.Fatalf("the worker ended before it said %q:\n%s", kind, w.said())
			}
			if m.Kind == kind {
				return m
			}
		case <-late:
			w.t.Fatalf("the worker never said %q:\n%s", kind, w.said())
		}
	}
}

// exits waits for the end, and returns the messages that came before it.
func (w *workerProcess) exits(want int) (kinds []Kind) {
	w.t.Helper()
	status := waitFor(w.t, w.ended)
	if !status.Exited() || status.ExitStatus() != want {
		w.t.Errorf("the worker ended with %v (%#x), want exit status %d:\n%s", status.Signal(), status, want, w.said())
	}
	for m := range w.messages {
		kinds = append(kinds, m.Kind)
	}
	return kinds
}

func (w *workerProcess) signal(s syscall.Signal) {
	w.t.Helper()
	if err := syscall.Kill(w.pid, s); err != nil {
		w.t.Fatal(err)
	}
}

// halt stops the worker: the signal alone says nothing of when.
func (w *workerProcess) halt() {
	w.t.Helper()
	w.signal(syscall.SIGSTOP)
	for deadline := time.Now().Add(patience); ; {
		stopped := true
		stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", w.pid))
		for _, stat := range stats {
			text, _ := os.ReadFile(stat)
			_, state, _ := strings.Cut(string(text), ") ")
			stopped = stopped && strings.HasPrefix(state, "T")
		}
		if stopped {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatal("the worker does not stop")
		}
	}
}

func TestChildLives(t *testing.T) {
	m := newTestMaster(t, 2)
	w := m.start(1, nil)
	if hello := w.until(KindHello); hello.Value != Protocol || hello.PID != w.pid {
		t.Errorf("greeting %+v", hello)
	}
	if boot := w.until(KindBoot); boot.Value != 1 {
		t.Errorf("boot message %+v, want index 1", boot)
	}
	if state := page.State(m.page.Slot(1).State.Load()); state != page.Live {
		t.Errorf("state %d, want Live", state)
	}
	response, err := http.Get("http://" + m.addr)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(response.Body)
	response.Body.Close()
	if want := fmt.Sprintf("%d ", w.pid); string(body) != want {
		t.Errorf("body %q, want %q", body, want)
	}
	w.until(KindPing)
	// What a terminal sends to the whole group is nothing to a worker.
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTTIN, syscall.SIGTTOU} {
		w.signal(s)
	}
	w.signal(syscall.SIGQUIT)
	w.until(KindPing)
	for deadline := time.Now().Add(patience); !strings.Contains(w.said(), "goroutine 1 "); {
		if time.Now().After(deadline) {
			t.Fatal("no dump on SIGQUIT")
		}
	}
	http.DefaultClient.CloseIdleConnections() // nobody would take them over
	w.signal(syscall.SIGTERM)
	w.until(KindExternalTerm) // the master has given no command
	if kinds := w.exits(0); !slices.Contains(kinds, KindTerm) {
		t.Errorf("messages until the end: %q, want a %q", kinds, KindTerm)
	}
	if state := page.State(m.page.Slot(1).State.Load()); state != page.Draining {
		t.Errorf("state %d, want Draining", state)
	}
}

func TestChildRefusesItsInheritance(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Inheritance)
		want   string
	}{
		{"a closed descriptor", func(i *Inheritance) { i.Listeners[0].FD = 99 }, "listeners[0]"},
		{"a page that is none", func(i *Inheritance) { i.Page = 4 }, "page"},
		{"a listener that is none", func(i *Inheritance) { i.Listeners[0].FD = 6 }, "does not listen"},
		{"a slot that is none", func(i *Inheritance) { i.Index = 2 }, "slots 0 to 1"},
		{"a standard descriptor", func(i *Inheritance) { i.Page = 1 }, "standard"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newTestMaster(t, 2).start(0, c.change)
			if m := w.until(KindFailed); !strings.Contains(m.Text, c.want) {
				t.Errorf("told %q, want something of %q", m.Text, c.want)
			}
			w.exits(1) // the test program's status
		})
	}
}

func TestChildEndsWithItsMaster(t *testing.T) {
	t.Run("while it boots", func(t *testing.T) {
		w := newTestMaster(t, 1).start(0, nil, "CATAMOUNT_TEST_BOOT=wait")
		w.until(KindHello)
		w.check.Close()
		w.exits(1)
	})
	t.Run("while it serves", func(t *testing.T) {
		w := newTestMaster(t, 1).start(0, nil)
		w.until(KindBoot)
		w.check.Close()
		w.exits(0)
	})
}

// The descriptors of a worker must not reach the programs that it starts.
func TestChildKeepsItsDescriptors(t *testing.T) {
	w := newTestMaster(t, 1).start(0, nil)
	w.until(KindBoot)
	for fd := 3; fd <= 8; fd++ {
		info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", w.pid, fd))
		if err != nil {
			t.Fatal(err)
		}
		var flags int
		for line := range strings.Lines(string(info)) {
			_, _ = fmt.Sscanf(line, "flags: %o", &flags)
		}
		if flags&syscall.O_CLOEXEC == 0 {
			t.Errorf("descriptor %d is not closed on exec (flags %o)", fd, flags)
		}
		if fd != 5 && flags&syscall.O_NONBLOCK == 0 {
			t.Errorf("descriptor %d blocks (flags %o)", fd, flags)
		}
	}
}
