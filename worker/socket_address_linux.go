package worker

import (
	"net"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// address is a peer's address without a pointer: it is kept for every
// connection, its text made only when somebody asks.
type address struct {
	ip     [16]byte
	port   uint16
	family uint8 // 0: a unix socket, or unknown; 4, also of a client on a dual-stack socket; 6
}

func (a *address) addrPort() netip.AddrPort {
	switch a.family {
	case 4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(a.ip[:4])), a.port)
	case 6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.ip), a.port)
	}
	return netip.AddrPort{}
}

// appendTo appends the text that http.Request.RemoteAddr has.
func (a *address) appendTo(b []byte) []byte {
	switch a.family {
	case 0:
		return append(b, '@')
	case 4: // each request has it made: netip takes 80 ns for what takes 15
		for i, octet := range a.ip[:4] {
			if i > 0 {
				b = append(b, '.')
			}
			b = appendDecimal(b, uint(octet))
		}
		return appendDecimal(append(b, ':'), uint(a.port))
	}
	return a.addrPort().AppendTo(b)
}

// appendDecimal appends n, which is below 100,000.
func appendDecimal(b []byte, n uint) []byte {
	switch {
	case n < 10:
		return append(b, byte('0'+n))
	case n < 100:
		return append(b, byte('0'+n/10), byte('0'+n%10))
	case n < 1000:
		return append(b, byte('0'+n/100), byte('0'+n/10%10), byte('0'+n%10))
	case n < 10000:
		return append(b, byte('0'+n/1000), byte('0'+n/100%10), byte('0'+n/10%10), byte('0'+n%10))
	}
	return append(b, byte('0'+n/10000), byte('0'+n/1000%10), byte('0'+n/100%10), byte('0'+n/10%10), byte('0'+n%10))
}

func (a *address) String() string { return string(a.appendTo(nil)) }

// hasZone: a link-local address means something only together with its
// interface. That is asked for when the text is made, not kept.
func (a *address) hasZone() bool {
	return a.family == 6 && a.ip[0] == 0xfe && a.ip[1]&0xc0 == 0x80
}

// peerWithZone asks the kernel for the peer's address with its interface.
func peerWithZone(fd int, a *address) netip.AddrPort {
	if name, err := unix.Getpeername(fd); err == nil {
		if in6, ok := name.(*unix.SockaddrInet6); ok {
			return withZone(a.addrPort(), in6.ZoneId)
		}
	}
	return a.addrPort()
}

func withZone(address netip.AddrPort, zone uint32) netip.AddrPort {
	if zone == 0 || !address.Addr().Is6() {
		return address
	}
	name := strconv.Itoa(int(zone))
	if itf, err := net.InterfaceByIndex(int(zone)); err == nil {
		name = itf.Name
	}
	return netip.AddrPortFrom(address.Addr().WithZone(name), address.Port())
}

func addressOf(addr net.Addr) address {
	var a address
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return a
	}
	a.port = uint16(tcp.Port)
	if ip4 := tcp.IP.To4(); ip4 != nil {
		a.family = 4
		copy(a.ip[:], ip4)
	} else if len(tcp.IP) == 16 {
		a.family = 6
		copy(a.ip[:], tcp.IP)
	}
	return a
}

func addressOfRaw(raw *unix.RawSockaddrAny) address {
	var a address
	switch raw.Addr.Family {
	case unix.AF_INET:
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(raw))
		a.family = 4
		a.port = in.Port<<8 | in.Port>>8
		copy(a.ip[:], in.Addr[:])
	case unix.AF_INET6:
		in := (*unix.RawSockaddrInet6)(unsafe.Pointer(raw))
		a.family = 6
		a.port = in.Port<<8 | in.Port>>8
		a.ip = in.Addr
		a.unmap()
	}
	return a
}

// unmap makes the address of an IPv4 client on a dual-stack socket what
// net/http shows.
func (a *address) unmap() {
	if ip := netip.AddrFrom16(a.ip); ip.Is4In6() {
		a.family = 4
		v4 := ip.Unmap().As4()
		a.ip = [16]byte{}
		copy(a.ip[:], v4[:])
	}
}

// localAddress asks the kernel for a connection's own address.
func localAddress(fd int) net.Addr {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return nil
	}
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		return &net.TCPAddr{IP: append([]byte(nil), name.Addr[:]...), Port: name.Port}
	case *unix.SockaddrInet6:
		a := address{ip: name.Addr, port: uint16(name.Port), family: 6}
		a.unmap()
		return net.TCPAddrFromAddrPort(withZone(a.addrPort(), name.ZoneId))
	case *unix.SockaddrUnix:
		return &net.UnixAddr{Name: name.Name, Net: "unix"}
	}
	return nil
}
