package stats

import (
	"math"
	"testing"
)

func TestFormat(t *testing.T) {
	missing := math.NaN()
	for _, c := range []struct {
		s      Series
		digits int
		want   string
	}{
		{Series{3, 1, 2}, 2, "2.00 (1.00–3.00)"},
		{Series{4, 1, 2, 3}, 1, "2.5 (1.0–4.0)"},
		{Series{4, missing, 2}, 0, "3 (2–4)"},
		{Series{7, missing}, 2, "7.00"},
		{Series{123456.4, 1234567}, 0, "679,012 (123,456–1,234,567)"},
		{Series{missing}, 2, "–"},
		{nil, 2, "–"},
	} {
		if got := MedianOf(c.s).Format(c.digits); got != c.want {
			t.Errorf("%v: %s, want %s", c.s, got, c.want)
		}
	}
	if got := Number(-1234.5, 1); got != "-1,234.5" {
		t.Errorf("%s, want -1,234.5", got)
	}
	if got := Number(100, 0); got != "100" {
		t.Errorf("%s, want 100", got)
	}
}

// TestOver: paired by round, the median of the ratios and not the ratio of the
// medians; a round that failed on one side pairs with nothing.
func TestOver(t *testing.T) {
	missing := math.NaN()
	got := Series{1, 20, missing, 9, 5}.Over(Series{2, 10, 3, 3, 0})
	for i, want := range []float64{0.5, 2, missing, 3, missing} {
		if got[i] != want && !(math.IsNaN(got[i]) && math.IsNaN(want)) {
			t.Errorf("round %d: %v, want %v", i+1, got[i], want)
		}
	}
	if got := got.Median(); got != 2 {
		t.Errorf("median %v, want 2", got)
	}
	if got := (Series{1, 2}).Over(Series{1}); len(got) != 1 {
		t.Errorf("ratios of a shorter series: %v", got)
	}
}

// TestFigureOver: what is pooled on both sides divides as it is; else the rounds
// are paired.
func TestFigureOver(t *testing.T) {
	rounds := Series{1, 8, 3}
	pooled, paired := Figure{Value: 6, Pooled: true, Rounds: rounds}, MedianOf(Series{1, 2, 1})
	if got := pooled.Over(Figure{Value: 3, Pooled: true, Rounds: Series{1, 2, 1}}); got.Value != 2 || got.Format(1) != "2.0 (1.0–4.0)" {
		t.Errorf("pooled: %s, want 2.0 (1.0–4.0)", got.Format(1))
	}
	if got := MedianOf(rounds).Over(paired); got.Value != 3 {
		t.Errorf("paired: %v, want the median of 1, 4 and 3", got.Value)
	}
}

func TestRange(t *testing.T) {
	if low, high := (Series{2, math.NaN(), 1}).Range(); low != 1 || high != 2 {
		t.Errorf("%v to %v, want 1 to 2", low, high)
	}
	if low, high := (Series{}).Range(); !math.IsNaN(low) || !math.IsNaN(high) {
		t.Errorf("%v to %v of nothing", low, high)
	}
}
