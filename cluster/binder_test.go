package cluster

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"
)

func contains(s, part string) bool { return strings.Contains(s, part) }

func TestListen(t *testing.T) {
	b, err := Listen(t.Context(), []Bind{TCPBind("127.0.0.1", "0"), {Network: "tcp", Address: "127.0.0.1:0", Backlog: 7}})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for i, want := range []uint32{DefaultBacklog, 7} {
		fd := b.listeners[i].fd
		protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
		if err != nil || protocol != unix.IPPROTO_TCP {
			t.Errorf("protocol %d, %v: TCP_USER_TIMEOUT does not work on Multipath TCP", protocol, err)
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil || flags&unix.O_NONBLOCK == 0 {
			t.Errorf("flags %#x, %v: it blocks", flags, err)
		}
		if cloexec, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || cloexec != unix.FD_CLOEXEC {
			t.Errorf("descriptor flags %#x, %v", cloexec, err)
		}
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil || info.Sacked != want { // of a listener: its backlog
			t.Errorf("backlog %d, %v, want %d", info.Sacked, err, want)
		}
	}
	// A port in use is refused, and nothing of the rest stays open.
	taken := b.Addrs()[0].String()
	_, err = Listen(t.Context(), []Bind{TCPBind("127.0.0.1", "0"), {Network: "tcp", Address: taken}})
	if err == nil || !contains(err.Error(), "cannot listen on tcp://"+taken) || !contains(err.Error(), "address already in use") {
		t.Errorf("a port in use: %v", err)
	}
	if _, err := Listen(t.Context(), []Bind{{Network: "udp", Address: taken}}); err == nil || !contains(err.Error(), "unknown network") {
		t.Errorf("udp: %v", err)
	}
	if _, err := Listen(t.Context(), []Bind{TCPBind("192.0.2.1", "0")}); err == nil || !contains(err.Error(), "cannot assign requested address") {
		t.Errorf("a foreign address: %v", err)
	}
}

// TestListeners: package net serves them in one process, and what it does to
// them changes nothing for the Binder.
func TestListeners(t *testing.T) {
	b, err := Listen(t.Context(), []Bind{TCPBind("127.0.0.1", "0")})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for range 2 {
		listeners, err := b.Listeners()
		if err != nil || len(listeners) != 1 || listeners[0].Addr().String() != b.Addrs()[0].String() {
			t.Fatalf("%v, %v", listeners, err)
		}
		done := make(chan error, 1)
		go func() {
			conn, err := listeners[0].Accept()
			if err == nil {
				_, err = io.WriteString(conn, "hello")
				conn.Close()
			}
			done <- err
		}()
		conn, err := net.Dial("tcp", b.Addrs()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(conn); string(text) != "hello" {
			t.Errorf("got %q, %v", text, err)
		}
		conn.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		listeners[0].Close()
		if blocking := b.assertNonBlocking(); len(blocking) > 0 {
			t.Errorf("%v block", blocking)
		}
	}
}

func TestAdoptListener(t *testing.T) {
	b, err := Listen(t.Context(), []Bind{TCPBind("127.0.0.1", "0")})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	l, err := adoptListener(b.listeners[0].bind, b.listeners[0].fd, nil)
	if err != nil || l.addr.String() != b.Addrs()[0].String() {
		t.Errorf("%v, %v", l, err)
	}
	pair, err := newHandOver()
	if err != nil {
		t.Fatal(err)
	}
	defer closeDescriptor(pair[0])
	defer closeDescriptor(pair[1])
	if _, err := adoptListener(b.listeners[0].bind, pair[0], nil); err == nil || !contains(err.Error(), "no listening socket for tcp://") {
		t.Errorf("a socket that does not listen: %v", err)
	}
	if _, err := adoptListener(b.listeners[0].bind, 1<<20, nil); err == nil {
		t.Error("no error for a descriptor that is not open")
	}
}

func TestParseBind(t *testing.T) {
	for _, c := range []struct{ text, want, wrong string }{
		{"tcp://127.0.0.1:9292", "tcp://127.0.0.1:9292", ""},
		{"tcp://:80", "tcp://:80", ""},
		{"tcp://[::1]:80?backlog=5", "tcp://[::1]:80?backlog=5", ""},
		{"unix:///run/app.sock", "unix:///run/app.sock", ""},
		{"unix://@name?backlog=1", "unix://@name?backlog=1", ""},
		{"127.0.0.1:80", "", "want tcp://host:port or unix:///path"},
		{"ssl://x:1", "", "want tcp://host:port or unix:///path"},
		{"tcp://x", "", "missing port"},
		{"tcp://x:http", "", "want a port from 0 to 65535"},
		{"tcp://x:65536", "", "want a port from 0 to 65535"},
		{"tcp://x:1?backlog=0", "", "backlog=0: want a number from 1 to 65535"},
		{"tcp://x:1?backlogs=9", "", `unknown option "backlogs"`},
		{"tcp://x:1?%", "", "options after ?"},
		{"unix://", "", "path of the socket is missing"},
		{"unix:///" + string(make([]byte, 200)), "", "a socket's may have 107"},
	} {
		b, err := ParseBind(c.text)
		if c.wrong != "" {
			if err == nil || !contains(err.Error(), c.wrong) {
				t.Errorf("%.40q: %v, want %q", c.text, err, c.wrong)
			}
		} else if err != nil || b.String() != c.want {
			t.Errorf("%q: %q, %v", c.text, b, err)
		}
	}
}

func FuzzParseBind(f *testing.F) {
	for _, s := range []string{"tcp://127.0.0.1:9292?backlog=7", "unix:///x", "tcp://[::1%25lo]:0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, err := ParseBind(s)
		if err != nil {
			return
		}
		again, err := ParseBind(b.String())
		if err != nil || again != b {
			t.Errorf("%q is %q, and that %q, %v", s, b, again, err)
		}
	})
}

func TestUnixSocketFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.sock")
	bind := Bind{Network: "unix", Address: path}
	exists := func() bool { return statSocket(path) != nil }
	first, err := Listen(t.Context(), []Bind{bind})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), []Bind{bind}); err == nil || !contains(err.Error(), "already a server bound") {
		t.Errorf("two servers on one path: %v", err)
	}
	if !exists() {
		t.Fatal("the second has removed the first one's file")
	}
	// The first is replaced by somebody else's socket of this name.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := Listen(t.Context(), []Bind{bind})
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil || !exists() {
		t.Errorf("the first has removed the second one's file (%v)", err)
	}
	// One whose server was killed is in nobody's way.
	for _, l := range second.listeners {
		l.file = nil
	}
	if err := second.Close(); err != nil || !exists() {
		t.Fatal("a file that was not to be removed is gone")
	}
	third, err := Listen(t.Context(), []Bind{bind})
	if err != nil {
		t.Fatal(err)
	}
	if err := third.Close(); err != nil || exists() {
		t.Errorf("the file is left over (%v)", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), []Bind{bind}); err == nil || !contains(err.Error(), "not a socket") {
		t.Errorf("a file of this name: %v", err)
	}
}

// TestStopClosesListenersFirst: the master accepts nobody. If it closed a socket
// after the last worker had, those who have connected in between would be reset.
func TestStopClosesListenersFirst(t *testing.T) {
	bubble(t, Options{Workers: 2}, obedient, func(t *testing.T, r *running, s *fakeSystem) {
		synctest.Wait()
		told := 0
		s.killing = func(pid int, signal syscall.Signal) { // on the master's goroutine
			told++
			if n := len(r.binder.listeners); n > 0 {
				t.Errorf("worker %d gets %v while the master has %d listening sockets", pid, signal, n)
			}
		}
		if err := r.Stop(); err != nil {
			t.Fatal(err)
		}
		<-r.done
		if told != 2 {
			t.Errorf("%d workers were told, want 2", told)
		}
	})
}

// TestStopEndsStartingWorkersFirst: they hold the listening sockets and accept
// nobody, so they should not be the last who do.
func TestStopEndsStartingWorkersFirst(t *testing.T) {
	const starting = 102
	slow := func(p *fakeProcess) {
		if p.pid != starting {
			obedient(p)
			return
		}
		p.signalled = func(syscall.Signal) { p.end(syscall.WaitStatus(syscall.SIGTERM)) }
	}
	bubble(t, Options{Workers: 3}, slow, func(t *testing.T, r *running, s *fakeSystem) {
		synctest.Wait()
		var told []int
		s.killing = func(pid int, _ syscall.Signal) { told = append(told, pid) } // on the master's goroutine
		if err := r.Stop(); err != nil {
			t.Fatal(err)
		}
		<-r.done
		if len(told) != 3 || told[0] != starting {
			t.Errorf("the workers were told to leave in the order %v, want %d first of three", told, starting)
		}
	})
}
