package parser

import (
	"bytes"
	"net/netip"
)

// ValidHost reports whether host can be the value of a Host field: a host and
// perhaps a port (RFC 9110 section 7.2, RFC 3986 section 3.2). Servers that read
// "a:80:b" or "[a]b" take one part or the other for the host. An empty one is
// valid.
func ValidHost[T ~string | ~[]byte](host T) bool {
	i := 0
	for i < len(host) && charSets[host[i]]&hostChar != 0 {
		i++
	}
	return i == len(host) || validHostFrom([]byte(host), i)
}

// validHostFrom goes on at the first byte that is more than part of a name. The
// host must not be empty when there is a port (RFC 9110 section 4.2.1).
func validHostFrom(host []byte, i int) bool {
	if host[0] == '[' {
		end := bytes.IndexByte(host, ']')
		return end > 0 && isIPv6(host[1:end]) && validPort(host[end+1:])
	}
	for i < len(host) && host[i] != ':' {
		switch {
		case charSets[host[i]]&hostChar != 0:
			i++
		case host[i] == '%' && i+2 < len(host) && hexDigit(host[i+1]) >= 0 && hexDigit(host[i+2]) >= 0:
			i += 3
		default:
			return false
		}
	}
	return i > 0 && validPort(host[i:])
}

// validPort reports whether what follows a host is nothing, or a colon and
// digits, of which there may be none.
func validPort(port []byte) bool {
	if len(port) == 0 {
		return true
	}
	for _, c := range port[1:] {
		if !isDigit(c) {
			return false
		}
	}
	return port[0] == ':'
}

// isIPv6 reports whether text is an IPv6 address, with a zone or without. Of the
// later versions for which RFC 3986 leaves room in brackets there are none.
func isIPv6(text []byte) bool {
	address, err := netip.ParseAddr(string(text))
	if err != nil || !address.Is6() {
		return false
	}
	for _, c := range []byte(address.Zone()) {
		if charSets[c]&hostChar == 0 {
			return false
		}
	}
	return true
}
