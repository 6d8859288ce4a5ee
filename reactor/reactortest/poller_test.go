package reactortest

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/catamount-server/catamount/reactor"
)

func TestEventsComeOnceAndInOrder(t *testing.T) {
	p := NewPoller()
	for fd := range 3 {
		if err := p.Add(fd, uint32(10+fd)); err != nil {
			t.Fatal(err)
		}
	}
	p.Event(2, reactor.Readable)
	p.Event(0, reactor.Writable)
	p.Inject(reactor.Event{FD: 2, Generation: 7, Events: reactor.HungUp},
		reactor.Event{FD: 2, Generation: 0, Events: reactor.HungUp})
	p.Event(2, reactor.Readable)
	want := []reactor.Event{
		{FD: 2, Generation: 12, Events: reactor.Readable},
		{FD: 0, Generation: 10, Events: reactor.Writable},
		{FD: 2, Generation: 7, Events: reactor.HungUp},
		{FD: 2, Generation: 12, Events: reactor.Readable},
	}
	var got []reactor.Event
	for _, count := range []int{3, 1, 0} {
		events := make([]reactor.Event, 3)
		n, err := p.Wait(events, 0)
		if n != count || err != nil {
			t.Fatalf("Wait = %d, %v; want %d", n, err, count)
		}
		got = append(got, events[:n]...)
	}
	if !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
	if err := p.Event(9, reactor.Readable); !errors.Is(err, ErrNotRegistered) {
		t.Errorf("event for an unknown descriptor: %v", err)
	}
}

func TestClosedTakesBack(t *testing.T) {
	p := NewPoller()
	p.Add(1, 1)
	p.Add(2, 2)
	p.Event(1, reactor.Readable)
	p.Event(2, reactor.Readable)
	p.Closed(1)
	events := make([]reactor.Event, 4)
	if n, _ := p.Wait(events, 0); n != 1 || events[0].FD != 2 {
		t.Errorf("fetched %v after descriptor 1 was closed", events[:n])
	}
	if _, registered := p.Generation(1); registered {
		t.Error("a closed descriptor is registered")
	}
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPoller()
		p.Add(1, 1)
		events := make([]reactor.Event, 4)
		start := time.Now()
		if n, err := p.Wait(events, 3*time.Second); n != 0 || err != nil {
			t.Fatalf("Wait = %d, %v", n, err)
		}
		if elapsed := time.Since(start); elapsed != 3*time.Second {
			t.Errorf("a timeout of 3 s took %v", elapsed)
		}

		for range 3 { // wakes before a Wait end one, not three
			p.Wake()
		}
		if n, err := p.Wait(events, -1); n != 0 || err != nil {
			t.Fatalf("Wait = %d, %v", n, err)
		}
		start = time.Now()
		time.AfterFunc(time.Second, func() { p.Wake() })
		p.Wait(events, -1)
		if elapsed := time.Since(start); elapsed != time.Second {
			t.Errorf("woken after %v, want 1 s", elapsed)
		}

		start = time.Now()
		time.AfterFunc(time.Minute, func() { p.Event(1, reactor.PeerClosed) })
		if n, _ := p.Wait(events, time.Hour); n != 1 {
			t.Errorf("Wait = %d events, want 1", n)
		}
		if elapsed := time.Since(start); elapsed != time.Minute {
			t.Errorf("event seen after %v, want 1 min", elapsed)
		}
		if p.Wakes() != 4 || p.Waits() != 4 {
			t.Errorf("%d wakes and %d waits, want 4 and 4", p.Wakes(), p.Waits())
		}
	})
}

func TestFailures(t *testing.T) {
	p := NewPoller()
	refusal, breakdown := errors.New("no memory"), errors.New("broken")
	p.Fail = func(call Call) error {
		if call.FD == 13 {
			return refusal
		}
		return nil
	}
	if err := p.Add(13, 1); err != refusal {
		t.Errorf("Add = %v, want %v", err, refusal)
	}
	if err := p.AddListener(3, 2); err != nil {
		t.Error(err)
	}
	if err := p.Remove(3); err != nil {
		t.Error(err)
	}
	if err := p.Remove(3); !errors.Is(err, ErrNotRegistered) {
		t.Errorf("second Remove = %v", err)
	}
	if want := []Call{{AddListener, 3, 2}, {Remove, 3, 2}}; !slices.Equal(p.Calls(), want) {
		t.Errorf("calls %v, want %v", p.Calls(), want)
	}
	p.Break(breakdown)
	if _, err := p.Wait(nil, -1); err != breakdown {
		t.Errorf("Wait = %v, want %v", err, breakdown)
	}
	p.Close()
	if _, err := p.Wait(nil, -1); err != ErrClosed || !p.IsClosed() {
		t.Errorf("Wait after Close = %v", err)
	}
}
