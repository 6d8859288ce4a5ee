package worker

import (
	"os"
	"unsafe"
)

// title is the memory in which the kernel finds the first argument of the
// process, as ps shows it. The master has made room there with blanks.
type title struct {
	memory []byte
	last   string
}

// init keeps the memory behind args[0]. The runtime's argument strings lie
// where the kernel has put them; nobody else may use args[0] afterwards.
func (t *title) init(args []string) {
	if len(args) > 0 && len(args[0]) > 0 {
		t.memory = unsafe.Slice(unsafe.StringData(args[0]), len(args[0]))
	}
}

// set shows text, cut to the room there is. Nothing happens when it is shown
// already.
func (t *title) set(text string) {
	if text == t.last || len(t.memory) == 0 {
		return
	}
	t.last = text
	n := copy(t.memory, text)
	for i := n; i < len(t.memory); i++ {
		t.memory[i] = ' '
	}
}

// setCommand names the process for top and the kernel's log, in 15 bytes.
func setCommand(name string) {
	_ = os.WriteFile("/proc/self/comm", []byte(name), 0) // for show
}
