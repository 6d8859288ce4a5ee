package catamount_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// requireNetworks set to 1 makes a test fail that cannot have networks of its
// own, instead of being skipped.
const requireNetworks = "CATAMOUNT_REQUIRE_NETNS"

// network is two network namespaces, a server's and its clients', with a cable
// between them that can be cut.
type network struct {
	t               *testing.T
	server, clients string // names of the namespaces
	hosts           int    // clients so far; each has an address of its own
}

const (
	serverHost = "192.0.2.1"
	clientHost = "192.0.2.%d" // from 11 on
	maxClients = 20
	cable      = "cat0"
)

var networks atomic.Int64

func newNetwork(t *testing.T) *network {
	t.Helper()
	cannot := t.Skip
	if os.Getenv(requireNetworks) == "1" {
		cannot = t.Fatal
	}
	if os.Geteuid() != 0 {
		cannot("network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		cannot("network namespaces need ip (iproute2)")
	}
	removeForgotten(t)
	n := &network{t: t}
	n.server = fmt.Sprintf("catamount-%d-%d-s", os.Getpid(), networks.Add(1))
	n.clients = strings.TrimSuffix(n.server, "s") + "c"
	for _, name := range []string{n.server, n.clients} {
		if output, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
			cannot(fmt.Sprintf("no network namespace: %v: %s", err, output))
		}
		t.Cleanup(func() { ip(t, "netns", "delete", name) })
	}
	const serverAddress, clientAddress = "02:00:00:00:00:01", "02:00:00:00:00:02"
	ip(t, "link", "add", "name", cable, "address", serverAddress, "netns", n.server,
		"type", "veth", "peer", "name", cable, "address", clientAddress, "netns", n.clients)
	ip(t, "-n", n.server, "address", "add", serverHost+"/24", "dev", cable)
	ip(t, "-n", n.server, "link", "set", cable, "up")
	var addresses, neighbours strings.Builder
	for i := range maxClients {
		host := fmt.Sprintf(clientHost, 11+i)
		fmt.Fprintf(&addresses, "address add %s/24 dev %s\n", host, cable)
		// The server knows its clients for good, as it knows its router: else the
		// kernel finds out that nobody has their addresses, and says "no route".
		fmt.Fprintf(&neighbours, "neighbour replace %s lladdr %s dev %s nud permanent\n", host, clientAddress, cable)
	}
	ipBatch(t, n.clients, addresses.String())
	ipBatch(t, n.server, neighbours.String())
	n.mend()
	return n
}

// removeForgotten deletes what test programs left that were killed.
func removeForgotten(t *testing.T) {
	t.Helper()
	names, _ := filepath.Glob("/run/netns/catamount-*-*-[sc]")
	for _, name := range names {
		name = filepath.Base(name)
		if _, err := os.Stat("/proc/" + strings.Split(name, "-")[1]); os.IsNotExist(err) {
			// Another program's tests may be doing the same.
			_ = exec.Command("ip", "netns", "delete", name).Run()
		}
	}
}

// cut drops the clients off the network: neither side hears another word.
func (n *network) cut() { ip(n.t, "-n", n.clients, "link", "set", cable, "down") }

// mend returns when both sides have noticed.
func (n *network) mend() {
	n.t.Helper()
	ip(n.t, "-n", n.clients, "link", "set", cable, "up")
	for _, name := range []string{n.server, n.clients} {
		poll(n.t, "the cable is whole again", func() bool {
			output, err := exec.Command("ip", "-n", name, "link", "show", "dev", cable).Output()
			return err == nil && strings.Contains(string(output), "state UP")
		})
	}
}

func ip(t *testing.T, words ...string) {
	t.Helper()
	if output, err := exec.Command("ip", words...).CombinedOutput(); err != nil {
		t.Errorf("ip %s: %v: %s", strings.Join(words, " "), err, output)
	}
}

func ipBatch(t *testing.T, namespace, lines string) {
	t.Helper()
	command := exec.Command("ip", "-n", namespace, "-batch", "-")
	command.Stdin = strings.NewReader(lines)
	if output, err := command.CombinedOutput(); err != nil {
		t.Errorf("ip -batch: %v: %s", err, output)
	}
}

// startChild runs a server in the server's namespace.
func (n *network) startChild(name string) *child {
	return startChild(n.t, name, "ip", "netns", "exec", n.server)
}

// dial connects a client with an address of its own and sends input. A client
// with a buffer of that many bytes does not take more of an answer; 0 leaves it
// to the system.
func (n *network) dial(server childReport, buffer int, input string) net.Conn {
	n.t.Helper()
	if n.hosts++; n.hosts > maxClients {
		n.t.Fatal("too many clients")
	}
	_, port, err := net.SplitHostPort(server.Addr)
	if err != nil {
		n.t.Fatal(err)
	}
	dialer := net.Dialer{
		Timeout:   patience,
		LocalAddr: &net.TCPAddr{IP: net.ParseIP(fmt.Sprintf(clientHost, 10+n.hosts))},
		Control: func(_, _ string, raw syscall.RawConn) (err error) {
			if buffer > 0 {
				_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, buffer) })
			}
			return err
		},
	}
	dialer.SetMultipathTCP(false)
	var conn net.Conn
	if err := inNamespace(n.clients, func() (err error) {
		conn, err = dialer.Dial("tcp4", net.JoinHostPort(serverHost, port))
		return err
	}); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(2 * patience))
	if _, err := io.WriteString(conn, input); err != nil {
		n.t.Fatal(err)
	}
	return conn
}

// inNamespace runs f in a network namespace. Sockets stay in the one that they
// were made in.
func inNamespace(name string, f func() error) error {
	target, err := os.Open("/run/netns/" + name)
	if err != nil {
		return err
	}
	defer target.Close()
	done := make(chan error, 1)
	go func() {
		// A thread that does not find its way back ends with this goroutine.
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- err
			return
		}
		defer home.Close()
		if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- os.NewSyscallError("setns", err)
			return
		}
		err = f()
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}
