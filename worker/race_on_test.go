//go:build race

package worker

// raceDetector: its own allocations would be counted.
const raceDetector = true
