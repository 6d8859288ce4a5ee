package worker

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/catamount-server/catamount/internal/page"
)

// team is some servers in one process that share what workers share.
type team struct {
	t      *testing.T
	page   *page.Page
	master *testMaster
	list   []*testServer
}

// startTeam starts n servers, each of which answers with its number and what it
// was sent.
func startTeam(t *testing.T, n int, handler http.HandlerFunc, changes ...func(*Options)) *team {
	t.Helper()
	g := newTeam(t, n)
	for i := range n {
		g.add(i, handler, changes...)
	}
	return g
}

// newTeam is a team that nobody has joined yet. When the test fails, what its
// servers have logged and counted is shown.
func newTeam(t *testing.T, n int) *team {
	t.Helper()
	m := newTestMaster(t, n)
	g := &team{t: t, page: m.page, master: m}
	t.Cleanup(func() {
		if t.Failed() {
			for i, ts := range g.list {
				t.Logf("server %d: %v; %+v", i, ts.logs.all(), ts.Stats())
			}
		}
	})
	return g
}

func (g *team) add(index int, handler http.HandlerFunc, changes ...func(*Options)) *testServer {
	t := g.t
	t.Helper()
	slot := g.page.Slot(index)
	answer := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Worker", fmt.Sprint(index))
		if handler != nil {
			handler(w, r)
			return
		}
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.URL.Path, body)
	}
	ts := newTestServer(t, answer, append(changes, func(o *Options) { o.Page, o.Slot, o.Index = g.page, slot, index })...)
	ts.addr = g.master.addr
	if err := ts.serveShared(InheritedListener{FD: duplicateFD(t, g.master.listener), Bind: "tcp://test"}); err != nil {
		t.Fatal(err)
	}
	if err := ts.takeFrom(duplicateFD(t, g.master.pair[1])); err != nil {
		t.Fatal(err)
	}
	slot.State.Store(uint32(page.Live))
	g.list = append(g.list, ts)
	return ts
}

func duplicateFD(t *testing.T, fd int) int {
	t.Helper()
	copied, err := syscall.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	syscall.CloseOnExec(copied)
	return copied
}

// leave makes a server hand over what it has, and waits until it has ended.
func (g *team) leave(index int) {
	g.t.Helper()
	ts := g.list[index]
	g.page.Slot(index).State.Store(uint32(page.Draining))
	ts.beginHandOver(g.master.pair[0], ts.reactor.Now()+int64(patience))
	g.ends(index)
}

func (g *team) ends(index int) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := g.list[index].Shutdown(ctx); err != nil {
		g.t.Fatalf("server %d does not end: %v; %+v", index, err, g.list[index].Stats())
	}
}

func request(path, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
}

// served reads an answer and returns who gave it.
func (c *client) served(want string) string {
	c.t.Helper()
	r, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		c.t.Fatalf("reading an answer: %v", err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || string(body) != want {
		c.t.Errorf("answer %q, %v; want %q", body, err, want)
	}
	if r.Close {
		c.t.Errorf("the answer to %q announces the end of the connection", want)
	}
	return r.Header.Get("Worker")
}

// only makes one worker of a team the one that accepts.
func (g *team) only(index int) {
	g.t.Helper()
	for i, ts := range g.list {
		done := make(chan struct{})
		if err := ts.reactor.Do(func() {
			defer close(done)
			if ts.closeGate(); i == index {
				ts.openGate()
			}
		}); err != nil {
			continue // it has left
		}
		waitFor(g.t, done)
	}
}

func TestHandOver(t *testing.T) {
	for _, c := range []struct {
		name, before, after string
		want                []string // of the second worker
	}{
		{"idle", "", request("/b", "bb"), []string{"/b bb"}},
		{"half a head", "POST /b HTTP/1.1\r\nHo", "st: x\r\nContent-Length: 2\r\n\r\nbb", []string{"/b bb"}},
		{"one byte", "P", request("/b", "bb")[1:], []string{"/b bb"}},
		{"an empty line", "\r\n", request("/b", "bb"), []string{"/b bb"}},
	} {
		for _, first := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, served before %t", c.name, first), func(t *testing.T) {
				g := startTeam(t, 2, nil)
				g.only(0)
				client := dialTCP(t, g.master.addr)
				if first {
					client.send(request("/a", "aa"))
					if who := client.served("/a aa"); who != "0" {
						t.Fatalf("served by %s, want 0", who)
					}
				} else {
					g.list[0].until("accepted", func() bool { return g.list[0].reactor.Size() == 1 })
				}
				client.send(c.before)
				if c.before != "" && strings.TrimSpace(c.before) != "" {
					g.list[0].waitState(StateHead, 1)
				}
				g.only(1)
				g.leave(0)
				client.send(c.after)
				for _, want := range c.want {
					if who := client.served(want); who != "1" {
						t.Errorf("served by %s, want 1", who)
					}
				}
				if st := g.list[1].Stats(); st.TakenOver != 1 || st.Accepted != 0 {
					t.Errorf("taken over %d, accepted %d; want 1 and 0", st.TakenOver, st.Accepted)
				}
			})
		}
	}
}

// Busy connections go when their answers are out; what is pipelined behind goes
// along, and so does what the kernel has.
func TestHandOverOfBusyConnections(t *testing.T) {
	begun, proceed := make(chan struct{}, 1), make(chan struct{})
	g := startTeam(t, 2, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			begun <- struct{}{}
			<-proceed
		}
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.URL.Path, body)
	})
	g.only(0)
	client := dialTCP(t, g.master.addr)
	client.send(request("/wait", "1"), request("/b", "2"), request("/c", "3"))
	waitFor(t, begun)
	g.only(1)
	ts := g.list[0]
	g.page.Slot(0).State.Store(uint32(page.Draining))
	ts.beginHandOver(g.master.pair[0], ts.reactor.Now()+int64(patience))
	client.send(request("/d", "4"))
	close(proceed)
	if who := client.served("/wait 1"); who != "0" {
		t.Errorf("served by %s, want 0", who)
	}
	for _, want := range []string{"/b 2", "/c 3", "/d 4"} {
		if who := client.served(want); who != "1" {
			t.Errorf("%s served by %s, want 1", want, who)
		}
	}
	g.ends(0)
}

// A body that is not whole when the worker is to leave is received here.
func TestHandOverAfterABody(t *testing.T) {
	g := startTeam(t, 2, nil)
	g.only(0)
	client := dialTCP(t, g.master.addr)
	client.send("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
	g.list[0].waitState(StateBody, 1)
	g.only(1)
	ts := g.list[0]
	g.page.Slot(0).State.Store(uint32(page.Draining))
	ts.beginHandOver(g.master.pair[0], ts.reactor.Now()+int64(patience))
	client.send("cd", request("/b", "2"))
	if who := client.served("/a abcd"); who != "0" {
		t.Errorf("served by %s, want 0", who)
	}
	if who := client.served("/b 2"); who != "1" {
		t.Errorf("served by %s, want 1", who)
	}
	g.ends(0)
}

// More connections than the queue takes, and clients who have left.
func TestHandOverOfMany(t *testing.T) {
	const many = 600
	g := startTeam(t, 2, nil)
	g.only(0)
	clients := make([]*client, many)
	for i := range clients {
		clients[i] = dialTCP(t, g.master.addr)
	}
	for _, c := range clients {
		c.send(request("/a", "x"))
	}
	for _, c := range clients {
		c.served("/a x")
	}
	g.page.Slot(0).State.Store(uint32(page.Draining))
	ts := g.list[0]
	ts.beginHandOver(g.master.pair[0], ts.reactor.Now()+int64(patience)) // nobody takes: the queue is full soon
	ts.until("the queue is full", func() bool { return ts.Stats().HandedOver > 0 && ts.Stats().HandedOver < many })
	for i, c := range clients {
		switch i % 3 {
		case 0:
			c.send(request("/b", "y"))
		case 1:
			c.Close()
		}
	}
	g.only(1)
	g.ends(0)
	here := 0
	for i, c := range clients {
		if i%3 == 0 {
			if c.served("/b y") == "0" {
				here++
			}
		} else if i%3 == 2 {
			c.send(request("/c", "z"))
			if who := c.served("/c z"); who != "1" {
				t.Errorf("served by %s, want 1", who)
			}
		}
	}
	t.Logf("%d of %d were served before they went", here, many/3)
	g.list[1].waitState(StateIdle, many*2/3)
	if lines := g.list[0].logs.all(); len(lines) > 0 {
		t.Errorf("logged: %v", lines)
	}
}

// What a client sends while its connection is on its way arrives, and so does the
// end of its sending side.
func TestHandOverOnTheWay(t *testing.T) {
	g := startTeam(t, 2, nil)
	g.only(0)
	half, gone, talking := dialTCP(t, g.master.addr), dialTCP(t, g.master.addr), dialTCP(t, g.master.addr)
	for _, c := range []*client{half, gone, talking} {
		c.send(request("/a", "x"))
		c.served("/a x")
	}
	g.only(-1)
	g.leave(0) // all three are in the queue now
	half.send(request("/b", "y"))
	_ = half.CloseWrite()
	gone.Close()
	talking.send(request("/b", "y")[:20])
	g.only(1)
	if who := half.served("/b y"); who != "1" {
		t.Errorf("served by %s, want 1", who)
	}
	g.list[1].waitState(StateHead, 1)
	talking.send(request("/b", "y")[20:])
	if who := talking.served("/b y"); who != "1" {
		t.Errorf("served by %s, want 1", who)
	}
	g.list[1].until("those who have ended are gone", func() bool { return g.list[1].reactor.Size() == 1 })
}

// A sibling all of whose places are taken takes idle connections all the same.
func TestHandOverToABusySibling(t *testing.T) {
	const many = 200
	release := make(chan struct{})
	g := startTeam(t, 2, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			<-release
		}
	}, func(o *Options) { o.MaxThreads = 1 })
	g.only(1)
	busy := dialTCP(t, g.master.addr)
	busy.send(request("/wait", ""))
	awaitBusy(t, g.page.Slot(1), 1)
	g.only(0)
	for range many {
		dialTCP(t, g.master.addr)
	}
	g.list[0].waitState(StateNew, many)
	g.only(1)
	began := time.Now()
	g.leave(0)
	g.list[1].until("all have come", func() bool { return g.list[1].Stats().TakenOver == many })
	t.Logf("%d connections handed over to a busy sibling in %v", many, time.Since(began))
	if took := time.Since(began); took > 5*time.Second { // at placePatience each it would be ten
		t.Errorf("took %v", took)
	}
	close(release)
	busy.served("")
}

// Without a sibling connections are let go, as at Shutdown.
func TestHandOverToNobody(t *testing.T) {
	g := startTeam(t, 1, nil)
	client := dialTCP(t, g.master.addr)
	client.send(request("/a", "x"))
	client.served("/a x")
	ts := g.list[0]
	began := time.Now()
	ts.beginHandOver(g.master.pair[0], ts.reactor.Now()+int64(50*time.Millisecond))
	if n, err := client.reader.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read %d, %v; want the end of the connection", n, err)
	}
	if took := time.Since(began); took < 50*time.Millisecond {
		t.Errorf("let go after %v", took)
	}
	client.Close()
	g.ends(0)
}

// Closed-loop clients that never retry notice nothing of workers that come and
// go.
func TestHandOverUnderLoad(t *testing.T) {
	const clients, rounds = 32, 20
	m := newTestMaster(t, 2)
	g := &team{t: t, page: m.page, master: m, list: nil}
	current := g.add(0, nil)
	stop, ended := make(chan struct{}), make(chan int, clients)
	for range clients {
		c := dialTCP(t, m.addr)
		go func() {
			n := 0
			for ; ; n++ {
				select {
				case <-stop:
					ended <- n
					return
				default:
				}
				c.send(request("/a", "body"))
				c.served("/a body")
			}
		}()
	}
	for round := range rounds {
		index := (round + 1) % 2
		next := g.add(index, nil)
		old := 1 - index
		g.page.Slot(old).State.Store(uint32(page.Draining))
		current.beginHandOver(m.pair[0], current.reactor.Now()+int64(patience))
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		if err := current.Shutdown(ctx); err != nil {
			t.Fatalf("round %d: %v; %+v", round, err, current.Stats())
		}
		cancel()
		g.page.Slot(old).Reset()
		current = next
	}
	close(stop)
	total := 0
	for range clients {
		total += waitFor(t, ended)
	}
	st := ReadStats(g.page.Slot(0))
	st = Add(st, ReadStats(g.page.Slot(1)))
	t.Logf("%d requests of %d clients, %d workers, %d connections handed over", total, clients, rounds, st.HandedOver)
	if st.Accepted != clients {
		t.Errorf("%d connections were accepted, want %d: somebody connected again", st.Accepted, clients)
	}
	if st.HandedOver != st.TakenOver || st.HandedOver == 0 {
		t.Errorf("handed over %d, taken over %d", st.HandedOver, st.TakenOver)
	}
}

func TestHandOverRefusesGarbage(t *testing.T) {
	good := handOverRecord{Bind: "tcp://test", HeadAge: -1}
	whole := good.append(nil)
	other := append([]byte(nil), whole...)
	other[5] = 99
	for _, c := range []struct {
		name, want string
		record     []byte
	}{
		{"one byte", "1 bytes", []byte("x")},
		{"a request", "want", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n" + strings.Repeat("x", 80))},
		{"another version", "version 99, want 1", other},
		{"cut", "bytes, want", whole[:len(whole)-1]},
		{"long", "bytes, want", append(append([]byte(nil), whole...), 'x')},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := startTeam(t, 1, nil)
			client, theirs := net2(t)
			if err := sendDescriptor(g.master.pair[0], theirs, c.record); err != nil {
				t.Fatal(err)
			}
			syscall.Close(theirs)
			if n, err := client.reader.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Errorf("read %d, %v; want the end of the connection", n, err)
			}
			line := g.list[0].logs.next(t, "refused what a sibling has handed over")
			if err := fmt.Sprint(line.attrs["err"]); !strings.Contains(err, c.want) {
				t.Errorf("logged %q, want something of %q", err, c.want)
			}
			// It goes on with the next one.
			client, theirs = net2(t)
			if err := sendDescriptor(g.master.pair[0], theirs, whole); err != nil {
				t.Fatal(err)
			}
			syscall.Close(theirs)
			client.send(request("/a", "x"))
			client.served("/a x")
		})
	}
}

// net2 makes a connection, whose server side is a bare descriptor.
func net2(t *testing.T) (*client, int) {
	t.Helper()
	l := listenTCP(t)
	defer l.Close()
	c := dialTCP(t, l.Addr().String())
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fd, err := duplicate(conn.(syscall.Conn))
	if err != nil {
		t.Fatal(err)
	}
	return c, fd
}

func FuzzHandOver(f *testing.F) {
	record := handOverRecord{Bind: "tcp://[::1]:80", Served: 3, Peer: address{family: 4, port: 1}, Age: 5, HeadAge: 6, Bytes: []byte("GET /")}
	f.Add(record.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseHandOver(b)
		if err != nil {
			return
		}
		if again := r.append(nil); string(again[:12]) != string(b[:12]) || string(again[14:]) != string(b[14:]) {
			t.Errorf("%q became %q", b, again)
		}
	})
}
