//go:build race

package preload

// raceDetector: its own memory would be counted.
const raceDetector = true
