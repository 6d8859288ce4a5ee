package threadpool

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/panjf2000/ants/v2"
)

// The benchmarks hand over batches as the reactor does, one per round of epoll_wait, and wait for the whole batch.
// Run them with GOMAXPROCS=1 and =2 in the environment: ants reads it when the program starts, -cpu comes too late.

// batch counts a batch of tasks down and tells the submitter of the last one.
type batch struct {
	left atomic.Int64
	done chan struct{}
}

func (b *batch) task() {
	if b.left.Add(-1) == 0 {
		b.done <- struct{}{}
	}
}

// run submits b.N tasks in batches of size.
func (b *batch) run(tb *testing.B, size int, submit func()) {
	b.done = make(chan struct{}, 1)
	tb.ReportAllocs()
	for i := 0; i < tb.N; i += size {
		n := min(size, tb.N-i)
		b.left.Store(int64(n))
		for range n {
			submit()
		}
		<-b.done
	}
}

func BenchmarkSubmit(b *testing.B) {
	for _, size := range []int{1, 64} {
		b.Run(fmt.Sprintf("threadpool/batch=%d", size), func(b *testing.B) {
			var bt batch
			p, err := New(Options{Max: 16}, func(_ *Place, bt *batch) { bt.task() })
			if err != nil {
				b.Fatal(err)
			}
			bt.run(b, size, func() { _ = p.Submit(&bt) })
			b.StopTimer()
			b.ReportMetric(float64(p.Stats().Spawned), "goroutines")
			if err := p.Shutdown(context.Background()); err != nil {
				b.Fatal(err)
			}
		})
		b.Run(fmt.Sprintf("go/batch=%d", size), func(b *testing.B) {
			var bt batch
			bt.run(b, size, func() { go bt.task() })
		})
		b.Run(fmt.Sprintf("ants/batch=%d", size), func(b *testing.B) {
			var bt batch
			p, err := ants.NewPoolWithFunc(0, func(any) { bt.task() }, ants.WithNonblocking(true), ants.WithDisablePurge(true))
			if err != nil {
				b.Fatal(err)
			}
			defer p.Release()
			bt.run(b, size, func() { _ = p.Invoke(&bt) })
		})
	}
}

// BenchmarkSubmitBlocking has tasks that wait for one another: 16 submitted, all of which must be running before the
// first may end. It measures how long the wake chain takes to reach all places.
func BenchmarkSubmitBlocking(b *testing.B) {
	const n = 16
	type gate struct {
		batch
		open chan struct{}
	}
	task := func(g *gate) {
		g.task()
		<-g.open
	}
	round := func(b *testing.B, g *gate, submit func()) {
		g.done, g.open = make(chan struct{}, 1), make(chan struct{})
		for i := 0; i < b.N; i += n {
			g.left.Store(n)
			for range n {
				submit()
			}
			<-g.done
			for range n {
				g.open <- struct{}{}
			}
		}
	}
	b.Run("threadpool", func(b *testing.B) {
		var g gate
		p, err := New(Options{Max: n}, func(_ *Place, g *gate) { task(g) })
		if err != nil {
			b.Fatal(err)
		}
		round(b, &g, func() { _ = p.Submit(&g) })
		b.StopTimer()
		if err := p.Shutdown(context.Background()); err != nil {
			b.Fatal(err)
		}
	})
	b.Run("go", func(b *testing.B) {
		var g gate
		round(b, &g, func() { go task(&g) })
	})
	b.Run("ants", func(b *testing.B) {
		var g gate
		p, err := ants.NewPoolWithFunc(0, func(any) { task(&g) }, ants.WithNonblocking(true), ants.WithDisablePurge(true))
		if err != nil {
			b.Fatal(err)
		}
		defer p.Release()
		round(b, &g, func() { _ = p.Invoke(&g) })
	})
}
