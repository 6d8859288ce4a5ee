package page

// The table of names has the application's counters.
const (
	nameCount = 1024
	nameBytes = 128
)
