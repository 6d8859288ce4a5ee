package worker

import (
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What finds vanished peers is set on the listener and inherited: no system
// call per connection.
func TestLiveness(t *testing.T) {
	for name, test := range map[string]struct {
		liveness                                  Liveness
		probes, idle, interval, count, unanswered int
	}{
		"given":         {Liveness{ProbeAfter: 7 * time.Second, ProbeInterval: 1500 * time.Millisecond, ProbeCount: 3, Unacknowledged: 2500 * time.Millisecond}, 1, 7, 2, 3, 2500},
		"without":       {Liveness{ProbeAfter: -1}, 0, -1, -1, -1, 0},
		"less than one": {Liveness{ProbeAfter: 1, ProbeInterval: 1, ProbeCount: 1, Unacknowledged: 1}, 1, 1, 1, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan [5]int, 1)
			ts := startServer(t, func(w http.ResponseWriter, r *http.Request) {
				var values [5]int
				for i, option := range [5][2]int{{unix.SOL_SOCKET, unix.SO_KEEPALIVE}, {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE},
					{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL}, {unix.IPPROTO_TCP, unix.TCP_KEEPCNT}, {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT}} {
					var err error
					if values[i], err = unix.GetsockoptInt(exchangeOf(r).slot.FD(), option[0], option[1]); err != nil {
						t.Error(err)
					}
				}
				got <- values
			}, func(o *Options) { o.Liveness = test.liveness })
			c := ts.dial()
			c.send(get)
			values := waitFor(t, got)
			for i, want := range [5]int{test.probes, test.idle, test.interval, test.count, test.unanswered} {
				if want >= 0 && values[i] != want {
					t.Errorf("options %v: [%d] is not %d", values, i, want)
				}
			}
		})
	}
}

// net.Listen makes multipath listeners, whose connections inherit nothing.
func TestLivenessBehindMultipathListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan [2]int, 1)
	ts := newTestServer(t, func(w http.ResponseWriter, r *http.Request) {
		var values [2]int
		for i, option := range [2]int{unix.TCP_USER_TIMEOUT, unix.TCP_NOTSENT_LOWAT} {
			var err error
			if values[i], err = unix.GetsockoptInt(exchangeOf(r).slot.FD(), unix.IPPROTO_TCP, option); err != nil {
				t.Error(err)
			}
		}
		got <- values
	}, func(o *Options) { o.Liveness.Unacknowledged = 2500 * time.Millisecond })
	go func() { ts.served <- ts.Serve(l) }()
	for range 3 { // the later ones come when the listener has been tuned and looked at
		c := dialTCP(t, l.Addr().String())
		c.send(get)
		if values := waitFor(t, got); values != [2]int{2500, notSent} {
			t.Errorf("options %v", values)
		}
		c.want(200, "")
	}
}

// The application may answer OPTIONS * itself.
func TestOptionsForTheApplication(t *testing.T) {
	ts := startServer(t, hello, func(o *Options) { o.AppOptions = true })
	c := ts.dial()
	c.send("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n")
	c.want(200, "Hello, World!")
}
