//go:build race

package catamount_test

// raceDetector: its own memory would be counted.
const raceDetector = true
