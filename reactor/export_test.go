package reactor

import "time"

// What the tests of package reactor_test, and those of package reactor, share.
// The former are outside because package reactortest imports this one.

// Hooks is a Handler made of functions; those that are nil do nothing.
type Hooks[T any] struct {
	OnReady, OnObserved   func(*Slot[T], Events)
	OnReturned, OnExpired func(*Slot[T])
	OnAcceptable          func(listener int)
	OnBatchEnd            func()
}

func (h *Hooks[T]) Ready(s *Slot[T], events Events) {
	if h.OnReady != nil {
		h.OnReady(s, events)
	}
}

func (h *Hooks[T]) Observed(s *Slot[T], events Events) {
	if h.OnObserved != nil {
		h.OnObserved(s, events)
	}
}

func (h *Hooks[T]) Returned(s *Slot[T]) {
	if h.OnReturned != nil {
		h.OnReturned(s)
	}
}

func (h *Hooks[T]) Expired(s *Slot[T]) {
	if h.OnExpired != nil {
		h.OnExpired(s)
	}
}

func (h *Hooks[T]) Acceptable(listener int) {
	if h.OnAcceptable != nil {
		h.OnAcceptable(listener)
	}
}

func (h *Hooks[T]) BatchEnd() {
	if h.OnBatchEnd != nil {
		h.OnBatchEnd()
	}
}

// SetLastGeneration lets the next registration be the last of the numbers.
func (r *Reactor[T]) SetLastGeneration(generation uint32) { r.lastGeneration = generation }

// BatchSize is how many events one Wait of the real poller can bring.
const BatchSize = batchSize

// noKernel is the poller of tests that call the reactor's parts by hand; the
// full fake is in package reactortest.
type noKernel struct{}

func (noKernel) Add(int, uint32) error                    { return nil }
func (noKernel) AddListener(int, uint32) error            { return nil }
func (noKernel) Remove(int) error                         { return nil }
func (noKernel) Wait([]Event, time.Duration) (int, error) { return 0, nil }
func (noKernel) Wake() error                              { return nil }
func (noKernel) Close() error                             { return nil }
