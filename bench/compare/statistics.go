package main

import (
	"fmt"
	"slices"
)

// series are the values of one figure, one per round.
type series []float64

func (s series) median() float64 {
	sorted := slices.Sorted(slices.Values(s))
	if len(sorted) == 0 {
		return 0
	}
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}

// over divides round by round: what disturbs a round disturbs both sides.
func (s series) over(other series) series {
	var ratios series
	for i := range min(len(s), len(other)) {
		if other[i] != 0 {
			ratios = append(ratios, s[i]/other[i])
		}
	}
	return ratios
}

// format writes "median (min–max)" with the given digits after the point.
func (s series) format(digits int) string {
	if len(s) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.*f (%.*f–%.*f)", digits, s.median(), digits, slices.Min(s), digits, slices.Max(s))
}
