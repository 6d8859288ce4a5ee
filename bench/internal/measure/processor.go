package measure

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// BusyTime returns how long a processor has been busy since the machine was
// started, for whomever: in steps of 10 ms.
func BusyTime(processor int) (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return parseBusy(string(text), processor)
}

// parseBusy reads proc_stat(5): "cpuN user nice system idle iowait irq softirq
// steal guest guest_nice". Guests are in user and nice already.
func parseBusy(text string, processor int) (time.Duration, error) {
	name := fmt.Sprintf("cpu%d", processor)
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 9 || fields[0] != name {
			continue
		}
		var ticks int64
		for _, i := range []int{1, 2, 3, 6, 7, 8} {
			n, err := strconv.ParseInt(fields[i], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("stat: %s: %w", name, err)
			}
			ticks += n
		}
		return time.Duration(ticks) * tick, nil
	}
	return 0, fmt.Errorf("stat: there is no %s", name)
}
