//go:build !race

package worker

func raceAcquire(int) {}
func raceRelease()    {}
