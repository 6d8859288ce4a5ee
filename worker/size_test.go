package worker

import (
	"testing"
	"unsafe"

	"github.com/catamount-server/catamount/reactor"
)

// What is made for each request, and what is kept for each idle connection,
// must stay within the allocator's size classes that they are meant for: 896
// bytes with the allocator's own word, and 64 slots in 8192.
func TestSizes(t *testing.T) {
	if size := unsafe.Sizeof(exchange{}); size > 896-8 {
		t.Errorf("an exchange has %d bytes, more than 888: shorten inlineText or inlineValues", size)
	}
	if size := unsafe.Sizeof(reactor.Slot[Client]{}); size > 127 {
		t.Errorf("a client's slot has %d bytes; 64 of them do not fit 8192", size)
	}
}
