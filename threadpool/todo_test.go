package threadpool

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// The ring must behave like a slice, through growth and wrap-around.
func TestTodoIsFIFO(t *testing.T) {
	var q todo[int]
	var model []int
	random := rand.New(rand.NewPCG(1, 2))
	next := 0
	for round := range 20_000 {
		// Long phases of growing and shrinking, so that all sizes up to a few thousand occur.
		if grow := round/4000%2 == 0; random.IntN(10) < 3 == grow && len(model) > 0 {
			if got := q.pop(); got != model[0] {
				t.Fatalf("round %d: pop = %d, want %d", round, got, model[0])
			}
			model = slices.Delete(model, 0, 1)
		} else {
			model = append(model, next)
			if got := q.push(next); got != len(model) {
				t.Fatalf("round %d: push = %d, want %d", round, got, len(model))
			}
			next++
		}
		if q.size != len(model) {
			t.Fatalf("round %d: size = %d, want %d", round, q.size, len(model))
		}
	}
	for _, want := range model {
		if got := q.pop(); got != want {
			t.Fatalf("pop = %d, want %d", got, want)
		}
	}
}

func TestTodoGivesMemoryBack(t *testing.T) {
	var q todo[*int]
	for _, test := range []struct{ tasks, kept int }{
		{1, todoMinimum},
		{todoMinimum, todoMinimum},
		{todoKept, todoKept},
		{todoKept + 1, 0},
		{3, todoMinimum},
	} {
		for range test.tasks {
			q.push(new(int))
		}
		for range test.tasks {
			q.pop()
		}
		if len(q.ring) != test.kept {
			t.Errorf("after %d tasks the empty ring has %d slots, want %d", test.tasks, len(q.ring), test.kept)
		}
		for i, task := range q.ring {
			if task != nil {
				t.Errorf("slot %d keeps a task alive", i)
			}
		}
	}
}
