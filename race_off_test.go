//go:build !race

package catamount_test

const raceDetector = false
