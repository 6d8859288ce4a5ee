package stats

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// Series are the values of one figure, one a round. A round whose run failed
// is NaN, so that the others keep their places beside another series.
type Series []float64

// Valid returns the values of the rounds that count.
func (s Series) Valid() Series {
	var valid Series
	for _, v := range s {
		if !math.IsNaN(v) {
			valid = append(valid, v)
		}
	}
	return valid
}

// Median of the rounds that count; NaN when there are none.
func (s Series) Median() float64 {
	sorted := s.Valid()
	slices.Sort(sorted)
	if len(sorted) == 0 {
		return math.NaN()
	}
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}

// Range returns the smallest and the largest value; NaN when there are none.
func (s Series) Range() (low, high float64) {
	valid := s.Valid()
	if len(valid) == 0 {
		return math.NaN(), math.NaN()
	}
	return slices.Min(valid), slices.Max(valid)
}

// Over divides round by round: what disturbs a round disturbs both sides. A
// round that misses either side, or would divide by zero, is NaN.
func (s Series) Over(other Series) Series {
	ratios := make(Series, min(len(s), len(other)))
	for i := range ratios {
		ratios[i] = s[i] / other[i]
		if other[i] == 0 {
			ratios[i] = math.NaN()
		}
	}
	return ratios
}

// Figure is what all rounds together say, and the rounds.
type Figure struct {
	Value  float64 // the median of the rounds, unless it is of all samples pooled
	Pooled bool
	Rounds Series
}

// MedianOf is the figure of rounds that stand for themselves.
func MedianOf(rounds Series) Figure { return Figure{Value: rounds.Median(), Rounds: rounds} }

// Over divides: the value is the median of the rounds' ratios, or the ratio of
// what is pooled on both sides.
func (f Figure) Over(other Figure) Figure {
	ratio := MedianOf(f.Rounds.Over(other.Rounds))
	if f.Pooled && other.Pooled && other.Value != 0 {
		ratio.Value, ratio.Pooled = f.Value/other.Value, true
	}
	return ratio
}

// Format writes "value (min–max)" of the rounds with so many digits after the
// point, the value alone when there is one round, and "–" when there is none.
func (f Figure) Format(digits int) string {
	valid := f.Rounds.Valid()
	switch len(valid) {
	case 0:
		return "–"
	case 1:
		return Number(f.Value, digits)
	}
	low, high := valid.Range()
	return fmt.Sprintf("%s (%s–%s)", Number(f.Value, digits), Number(low, digits), Number(high, digits))
}

// Number writes v with so many digits after the point, thousands parted by
// commas; "–" for NaN.
func Number(v float64, digits int) string {
	if math.IsNaN(v) {
		return "–"
	}
	text := strconv.FormatFloat(math.Abs(v), 'f', digits, 64)
	whole := len(text)
	if digits > 0 {
		whole -= digits + 1
	}
	for i := whole - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	if v < 0 {
		text = "-" + text
	}
	return text
}
