package threadpool

import (
	"context"
	"sync/atomic"
	"testing"
)

// OnIdle is called after the last of some tasks, and those that come meanwhile
// wait for it. Busy is what others see of it.
func TestOnIdle(t *testing.T) {
	var gauge atomic.Int64
	var running atomic.Int32
	idle, release := make(chan struct{}), make(chan struct{})
	gates := [3]chan struct{}{make(chan struct{}), make(chan struct{}), make(chan struct{})}
	begun := make(chan int, len(gates))
	p, err := New(Options{Max: 4, Busy: &gauge, OnIdle: func() {
		if n := running.Load(); n != 0 {
			t.Errorf("idle beside %d tasks", n)
		}
		idle <- struct{}{}
		<-release
	}}, func(_ *Place, i int) {
		running.Add(1)
		defer running.Add(-1)
		begun <- i
		<-gates[i]
	})
	if err != nil {
		t.Fatal(err)
	}
	submit := func(i int) {
		if err := p.Submit(i); err != nil {
			t.Fatal(err)
		}
	}
	submit(0)
	submit(1)
	<-begun
	<-begun
	if n := gauge.Load(); n != 2 {
		t.Errorf("Busy is %d, want 2", n)
	}
	close(gates[0])
	close(gates[1])
	<-idle
	if n := gauge.Load(); n != 0 {
		t.Errorf("Busy is %d, want 0", n)
	}
	submit(2)
	if n := gauge.Load(); n != 1 {
		t.Errorf("Busy is %d, want 1", n)
	}
	select {
	case <-begun:
		t.Error("a task runs beside the hook")
	default:
	}
	release <- struct{}{}
	<-begun
	close(gates[2])
	<-idle
	close(release)
	if err := p.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
}
