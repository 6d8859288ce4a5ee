// Package stats holds the little statistics of the bench: medians with their
// spread, and ratios that are paired by round. Everybody may import it; it
// imports nothing of the bench.
package stats
