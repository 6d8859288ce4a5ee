//go:build !race

package preload

const raceDetector = false
