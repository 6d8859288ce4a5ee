package worker

import (
	"testing"
	"unsafe"

	"github.com/catamount-server/catamount/reactor"
)

// What is made for each request, and what is kept for each idle connection,
// must stay within the allocator's size classes that they are meant for, of
// which it keeps eight bytes for itself; and 64 slots within 8192.
func TestSizes(t *testing.T) {
	for _, exchange := range []struct {
		shape       string
		size, class uintptr
	}{
		{"bare", unsafe.Sizeof(bareExchange{}), 768},
		{"few", unsafe.Sizeof(fewExchange{}), 896},
		{"usual", unsafe.Sizeof(usualExchange{}), 1280},
		{"largest", unsafe.Sizeof(exchange{}), 704},
	} {
		if exchange.size > exchange.class-8 {
			t.Errorf("the exchange of shape %s has %d bytes, more than the %d that fit: shorten its text", exchange.shape, exchange.size, exchange.class-8)
		}
	}
	if size := unsafe.Sizeof(reactor.Slot[Client]{}); size > 127 {
		t.Errorf("a client's slot has %d bytes; 64 of them do not fit 8192", size)
	}
}
