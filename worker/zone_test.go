package worker

import (
	"net/netip"
	"testing"
)

// The interface of a link-local peer is not kept with the connection; it is
// asked for when the text is made.
func TestZone(t *testing.T) {
	local := address{family: 6, ip: [16]byte{0xfe, 0x80, 15: 1}, port: 5}
	global := address{family: 6, ip: [16]byte{0x20, 0x01, 15: 1}, port: 5}
	if !local.hasZone() || global.hasZone() {
		t.Error("only link-local addresses have a zone")
	}
	if got := withZone(local.addrPort(), 1).String(); got != "[fe80::1%lo]:5" {
		t.Errorf("interface 1 shows as %s", got)
	}
	if plain := netip.MustParseAddrPort("192.0.2.1:80"); withZone(plain, 1) != plain {
		t.Error("IPv4 has no zones")
	}
}
