package cluster

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/catamount-server/catamount/worker"
)

// realWorker is a worker as package worker has it.
func realWorker(in worker.Inheritance) int {
	link, err := worker.Attach(in)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitBoot
	}
	if in.Role != worker.RoleWorker {
		return 0
	}
	err = link.Serve(context.Background(), worker.ServeOptions{
		PingInterval: 50 * time.Millisecond,
		Options: worker.Options{MinThreads: 1, MaxThreads: 5, QueueRequests: true, KeepAlive: true,
			MaxFastInline: 10, BodyMemory: 64 << 10, OutputMemory: 64 << 10, OutputMemoryTotal: 1 << 20,
			Timeouts: worker.Timeouts{Idle: time.Minute, Linger: time.Second},
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil || string(body) != postBody {
					http.Error(w, "the body is not whole", http.StatusBadRequest)
					return
				}
				fmt.Fprintf(w, "worker %d phase %d pid %d", in.Index, in.Phase, os.Getpid())
			})},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// posts sends requests over one connection each for its clients, which never
// send one again; it counts failures and new connections.
type posts struct {
	stop            chan struct{}
	wg              sync.WaitGroup
	requests, dials atomic.Int64
	failed          atomic.Int64
	slowest         atomic.Int64
	firstErr        atomic.Value
}

func startPosts(addr net.Addr, clients int) *posts {
	p := &posts{stop: make(chan struct{})}
	dial := dialer(addr)
	for range clients {
		p.wg.Go(func() {
			client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
				MaxIdleConnsPerHost: 1,
				DialContext: func(ctx context.Context, n, a string) (net.Conn, error) {
					p.dials.Add(1)
					return dial(ctx, n, a)
				},
			}}
			for {
				select {
				case <-p.stop:
					client.CloseIdleConnections()
					return
				case <-time.After(time.Millisecond):
				}
				begun := time.Now()
				err := post(&client)
				p.requests.Add(1)
				if took := int64(time.Since(begun)); took > p.slowest.Load() {
					p.slowest.Store(took)
				}
				if err != nil {
					p.failed.Add(1)
					p.firstErr.CompareAndSwap(nil, err.Error())
				}
			}
		})
	}
	return p
}

const postBody = "of unknown length: no client sends it again by itself"

func post(client *http.Client) error {
	resp, err := client.Post("http://test/", "text/plain", io.MultiReader(strings.NewReader(postBody)))
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s", resp.Status)
		}
	}
	return err
}

func (p *posts) end(t *testing.T) {
	t.Helper()
	close(p.stop)
	p.wg.Wait()
	t.Logf("%d requests over %d connections, the slowest %s", p.requests.Load(), p.dials.Load(), time.Duration(p.slowest.Load()))
	if n := p.failed.Load(); n > 0 {
		t.Errorf("%d requests have failed: %v", n, p.firstErr.Load())
	}
}

// TestRealWorkers: clients that keep their connections and POST, and never send
// a request again, see nothing of restarts of both kinds and of scaling.
func TestRealWorkers(t *testing.T) {
	m := startMaster(t, masterConfig{Directory: release(t, "real real-master"), Bind: "tcp://127.0.0.1:0", Workers: 2})
	m.log.await(t, 1, "all workers booted")
	const clients = 8
	load := startPosts(m.addr(), clients)
	for i := range 3 {
		m.signal(syscall.SIGUSR1)
		m.log.await(t, i+1, "phased restart complete")
	}
	if n := load.dials.Load(); n > clients {
		t.Errorf("%d clients had to connect %d times in phased restarts", clients, n)
	}
	for i := range 3 {
		m.signal(syscall.SIGUSR2)
		m.log.await(t, i+1, "hot restart complete")
	}
	m.signal(syscall.SIGTTIN)
	m.log.await(t, 15, "worker booted") // 2 first, 12 restarted, 1 more
	m.signal(syscall.SIGTTOU)
	m.log.await(t, 13, "worker stopped")
	load.end(t)
	m.end()
}

// TestMasterStaysSmall: in memory and descriptors, over many restarts.
func TestMasterStaysSmall(t *testing.T) {
	m := startMaster(t, masterConfig{Directory: release(t, ""), Bind: "tcp://127.0.0.1:0", Workers: 1, Preload: true})
	m.log.await(t, 1, "all workers booted")
	restart := func(from, to int) {
		for i := from; i < to; i++ {
			m.signal(syscall.SIGUSR1)
			m.log.await(t, i+1, "phased restart complete")
		}
	}
	rounds := 200
	if testing.Short() || raceEnabled {
		rounds = 40
	}
	restart(0, 20)
	before := memoryOf(t, m.Process.Pid)
	restart(20, 20+rounds)
	after := memoryOf(t, m.Process.Pid)
	descriptors, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", m.Process.Pid))
	if err != nil || len(descriptors) > 25 {
		t.Errorf("the master has %d descriptors, %v", len(descriptors), err)
	}
	t.Logf("KiB of memory after 20 restarts: %v, after %d more: %v", before, rounds, after)
	// The race detector remembers every goroutine that there was.
	if !raceEnabled && after["RssAnon:"] > before["RssAnon:"]+1024 {
		t.Errorf("the master has grown from %d to %d KiB", before["RssAnon:"], after["RssAnon:"])
	}
	if !raceEnabled && after["VmRSS:"] > 15<<10 {
		t.Errorf("the master has %d KiB, want 15 MiB at most", after["VmRSS:"])
	}
	m.end()
}

// memoryOf reads a process's memory, in KiB.
func memoryOf(t *testing.T, pid int) map[string]int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	sizes := make(map[string]int)
	for line := range strings.Lines(string(text)) {
		var name string
		var size int
		if n, _ := fmt.Sscanf(line, "%s %d kB", &name, &size); n == 2 && (strings.HasPrefix(name, "Rss") || name == "VmRSS:") {
			sizes[name] = size
		}
	}
	return sizes
}

// TestMasterKilled: its workers leave, and the address is free for the next
// master.
func TestMasterKilled(t *testing.T) {
	c := masterConfig{Directory: release(t, "real real-master"), Bind: "tcp://127.0.0.1:0", Workers: 2}
	m := startMaster(t, c)
	m.log.await(t, 1, "all workers booted")
	load := startPosts(m.addr(), 2)
	for load.requests.Load() < 20 {
		time.Sleep(time.Millisecond) // until there is load
	}
	c.Bind = "tcp://" + m.addr().String()
	close(load.stop)
	load.wg.Wait()
	m.signal(syscall.SIGKILL)
	if err := m.Wait(); err == nil {
		t.Fatal("it was not killed")
	}
	deadline := time.Now().Add(patience)
	for {
		b, err := Listen(t.Context(), []Bind{{Network: "tcp", Address: m.addr().String()}})
		if err == nil {
			_ = b.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the address is still taken: %v", err)
		}
		time.Sleep(time.Millisecond)
	}
	next := startMaster(t, c)
	next.log.await(t, 1, "all workers booted")
	next.end()
}

// TestKilledWorkersUnderLoad: twenty times in a row a worker is killed, and each
// time another one serves soon.
func TestKilledWorkersUnderLoad(t *testing.T) {
	m := startMaster(t, masterConfig{Directory: release(t, "real real-master"), Bind: "tcp://127.0.0.1:0", Workers: 2})
	m.log.await(t, 1, "all workers booted")
	load := startPosts(m.addr(), 8)
	const kills = 20
	took := make([]time.Duration, kills)
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: dialer(m.addr()), DisableKeepAlives: true}}
	for i := range kills {
		var index, phase, pid int
		resp, err := client.Post("http://test/", "text/plain", strings.NewReader(postBody))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fscanf(resp.Body, "worker %d phase %d pid %d", &index, &phase, &pid); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		begun := time.Now()
		if err := kill(pid); err != nil {
			t.Fatal(err)
		}
		m.log.await(t, 3+i, "worker booted")
		took[i] = time.Since(begun)
	}
	close(load.stop)
	load.wg.Wait()
	slices.Sort(took)
	t.Logf("replaced after %s, the slowest %s; %d requests, %d failed", took[kills/2], took[kills-1], load.requests.Load(), load.failed.Load())
	if !raceEnabled && took[kills/2] > 100*time.Millisecond {
		t.Errorf("half of the replacements took longer than %s", took[kills/2])
	}
	m.end()
}
