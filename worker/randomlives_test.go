package worker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/catamount-server/catamount/reactor"
	"golang.org/x/sys/unix"
)

// life is a client in virtual time.
type life struct {
	*fakeSocket
	input  string
	unsent string
	list   []order
	// steady: it sends all that it has at once, takes everything, and stays.
	steady bool
}

// In virtual time, where deadlines of every kind are met exactly: clients that
// send and take a little, stop, fail and leave, several of them in one batch, and
// the end of the server in the middle of it. Whoever does not leave gets what is
// his, nobody gets anything else, and nothing is left.
func TestRandomLives(t *testing.T) {
	seeds := 300
	if raceDetector || testing.Short() {
		seeds = 60
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(uint64(seed), 4))
			m := &mill{t: t, ending: make(chan struct{}), unit: time.Millisecond, kinds: kinds}
			change := func(o *Options) {
				m.choose(o, random)
				m.chooseSlow(o, random)
			}
			inBubble(t, m.serve, change, func(t *testing.T, k *fakeKernel) {
				m.ts = &testServer{Server: k.Server, t: t, logs: k.logs}
				m.live(k, random)
			})
		})
	}
}

// chooseSlow makes time, which costs nothing here, pass in seconds.
func (m *mill) chooseSlow(o *Options, random *rand.Rand) {
	o.MaxQueueWait *= 1000
	o.HandlerTimeout *= 1000
	o.MaxKeepAlive = random.IntN(6)
	o.Timeouts = Timeouts{
		FirstByte: 5 * time.Second, Head: 2 * time.Second, Request: 20 * time.Second, BodyIdle: time.Second,
		BodyMinRate: 500, BodyGrace: 3 * time.Second, Idle: 10 * time.Second, AdvertisedIdle: 8 * time.Second,
		Write: time.Duration(random.IntN(2)) * 30 * time.Second, WriteMinRate: 500, WriteGrace: 3 * time.Second, Linger: time.Second,
	}
}

func (m *mill) newLife(k *fakeKernel, random *rand.Rand, number int) *life {
	l := &life{steady: random.IntN(3) == 0}
	l.input, l.list = m.orders(random, fmt.Sprint(number))
	if random.IntN(8) == 0 {
		l.input += getPath(exitPath)
		l.list = append(l.list, order{kind: "abort", name: "x"})
	}
	l.unsent = l.input
	l.fakeSocket = k.connect()
	if l.steady {
		l.put(l.input, random.IntN(2) == 0)
		l.unsent = ""
		l.event(reactor.Readable | reactor.Writable)
	} else {
		l.setRoom(random.IntN(1000))
	}
	return l
}

// act does one of the things that clients do, and waits for nothing.
func (l *life) act(random *rand.Rand) {
	switch random.IntN(12) {
	case 0:
		l.put("", true)
		l.event(reactor.Readable | reactor.Writable | reactor.PeerClosed)
	case 1:
		l.kernel.mu.Lock()
		l.err = []error{unix.ECONNRESET, unix.ETIMEDOUT, unix.EPIPE}[random.IntN(3)]
		l.kernel.mu.Unlock()
		l.event(reactor.Readable | reactor.Writable | reactor.PeerClosed | reactor.HungUp)
	case 2, 3, 4, 5:
		l.setRoom(random.IntN(1 << random.IntN(18)))
		l.event(reactor.Writable)
	default:
		n := min(len(l.unsent), random.IntN(1+1<<random.IntN(18)))
		l.put(l.unsent[:n], false)
		l.unsent = l.unsent[n:]
		l.event(reactor.Readable | reactor.Writable)
	}
}

func (m *mill) live(k *fakeKernel, random *rand.Rand) {
	var lives []*life
	places := 6
	if !k.options.QueueRequests {
		places = k.options.MaxThreads
	}
	end := -1
	if random.IntN(2) == 0 {
		end = random.IntN(100)
	}
	stopped := make(chan error, 1)
	for step := range 100 {
		switch {
		case step == end && random.IntN(2) == 0:
			close(m.ending)
			go func() { stopped <- k.Shutdown(context.Background()) }()
		case step == end:
			close(m.ending)
			stopped <- k.Close()
		case end < 0 || step < end:
			if len(lives) < places || random.IntN(10) == 0 && k.options.QueueRequests {
				lives = append(lives, m.newLife(k, random, len(lives)))
			}
		}
		for range random.IntN(4) {
			if len(lives) == 0 {
				break
			}
			if l := lives[random.IntN(len(lives))]; !l.steady {
				l.act(random)
			}
		}
		if random.IntN(3) > 0 {
			synctest.Wait()
		}
		if random.IntN(4) == 0 {
			k.pass(time.Duration(random.IntN(1 << random.IntN(31))))
		}
	}
	k.pass(5 * time.Minute)
	if end < 0 {
		for state, n := range k.Stats().Connections {
			m.t.Errorf("after all deadlines %d connections are %s", n, state)
		}
	} else if err := waitFor(m.t, stopped); err != nil {
		m.t.Errorf("the end: %v", err)
	}
	m.helpers.Wait()
	synctest.Wait()
	for _, l := range lives {
		if l.state().closedAt.IsZero() {
			m.t.Errorf("client %d is still there", l.fd)
		}
		missing := func(error) {}
		if l.steady {
			missing = m.wantEnding
		}
		m.read(strings.NewReader(l.received()), l.list, missing)
	}
	m.checkCounts(nil)
}
