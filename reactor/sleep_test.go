package reactor

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// wakeCounter is a kernel that only counts wake-ups.
type wakeCounter struct {
	noKernel
	wakes atomic.Int64
}

func (k *wakeCounter) Wake() error { k.wakes.Add(1); return nil }

// TestSleepAgainstMessage aims messages at the moment in which the reactor
// decides to sleep: either it sees the message, or it is woken.
func TestSleepAgainstMessage(t *testing.T) {
	const rounds = 50_000
	kernel := new(wakeCounter)
	r, err := New[int](new(Hooks[int]), Options{Poller: kernel})
	if err != nil {
		t.Fatal(err)
	}
	s := addClient(t, r, 3)
	var shot aim
	var looking, posted atomic.Int64
	var end atomic.Bool
	var owner sync.WaitGroup
	owner.Go(func() {
		for round := range int64(rounds) {
			for turn := 0; looking.Load() <= round; turn++ {
				if end.Load() {
					return
				}
				pause(turn)
			}
			if round%2 == 0 {
				r.Post(s)
			} else {
				r.Stop()
			}
			posted.Store(round + 1)
		}
	})
	began := time.Now()
	for round := range int64(rounds) {
		before := kernel.wakes.Load()
		looking.Store(round + 1)
		shot.wait()
		sleeps := r.patience(false) != 0
		for turn := 0; posted.Load() <= round; turn++ {
			pause(turn)
		}
		shot.was(!sleeps)
		if sleeps && kernel.wakes.Load() == before {
			t.Errorf("round %d: the reactor sleeps and nobody woke it", round)
			break
		}
		if isEnough(round, began) {
			break
		}
		r.sleeping.Store(false)
		r.collect()
		obey(r.takeCommands())
	}
	end.Store(true)
	owner.Wait()
	t.Logf("%d messages came before the look, %d after it", shot.early, shot.late)
}
