package cluster

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

const (
	// maxUnixPath is the longest path that fits sockaddr_un with its final NUL
	// (unix(7)).
	maxUnixPath = 107
	// DefaultBacklog is how many connections the kernel keeps until somebody
	// accepts them, Puma's 1024. The kernel allows no more than
	// net.core.somaxconn.
	DefaultBacklog = 1024
)

// A Bind is one address to listen on.
type Bind struct {
	Network string // "tcp" or "unix"
	Address string // as package net wants it
	Backlog int    // 0: DefaultBacklog
}

// TCPBind is the bind of a host and a port; an empty host stands for every
// address of the machine.
func TCPBind(host, port string) Bind {
	return Bind{Network: "tcp", Address: net.JoinHostPort(host, port)}
}

// String is what ParseBind reads.
func (b Bind) String() string {
	s := b.Network + "://" + b.Address
	if b.Backlog > 0 {
		s += "?backlog=" + strconv.Itoa(b.Backlog)
	}
	return s
}

// ParseBind reads Puma's notation: tcp://host:port or unix:///path, perhaps
// with ?backlog=n. An empty host stands for every address of the machine, and
// unix://@name for a socket in the abstract namespace. The error does not
// repeat s.
func ParseBind(s string) (Bind, error) {
	network, address, ok := strings.Cut(s, "://")
	if !ok || network != "tcp" && network != "unix" {
		return Bind{}, errors.New("want tcp://host:port or unix:///path")
	}
	b := Bind{Network: network}
	address, query, _ := strings.Cut(address, "?")
	if err := b.parseOptions(query); err != nil {
		return Bind{}, err
	}
	if network == "unix" {
		if address == "" {
			return Bind{}, errors.New("the path of the socket is missing")
		}
		if len(address) > maxUnixPath {
			return Bind{}, fmt.Errorf("the path has %d bytes, a socket's may have %d", len(address), maxUnixPath)
		}
		b.Address = address
		return b, nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		if reason, ok := errors.AsType[*net.AddrError](err); ok {
			return Bind{}, errors.New(reason.Err) // the address is in the caller's message already
		}
		return Bind{}, err
	}
	b.Address = net.JoinHostPort(host, port)
	return b, CheckPort(port)
}

func (b *Bind) parseOptions(query string) error {
	options, err := url.ParseQuery(query)
	if err != nil {
		return fmt.Errorf("the options after ?: %w", err)
	}
	for name, values := range options {
		if name != "backlog" {
			return fmt.Errorf("unknown option %q after ?, there is backlog", name)
		}
		n, err := strconv.ParseUint(values[len(values)-1], 10, 16)
		if err != nil || n == 0 {
			return fmt.Errorf("backlog=%s: want a number from 1 to 65535", values[len(values)-1])
		}
		b.Backlog = int(n)
	}
	return nil
}

// CheckPort says what is wrong with the number of a port.
func CheckPort(s string) error {
	if _, err := strconv.ParseUint(s, 10, 16); err != nil {
		return errors.New("want a port from 0 to 65535")
	}
	return nil
}
