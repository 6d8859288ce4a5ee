package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// maxUnixPath is the longest path that fits sockaddr_un with its final NUL
// (unix(7)).
const maxUnixPath = 107

// A bind is one address to listen on.
type bind struct {
	network string // "tcp" or "unix"
	address string // as package net wants it
}

func (b bind) String() string { return b.network + "://" + b.address }

func tcpBind(host, port string) bind { return bind{"tcp", net.JoinHostPort(host, port)} }

// parseBind reads Puma's notation, tcp://host:port or unix:///path. An empty
// host stands for every address of the machine, and unix://@name for a socket
// in the abstract namespace.
func parseBind(s string) (bind, error) {
	network, address, ok := strings.Cut(s, "://")
	if !ok || network != "tcp" && network != "unix" {
		return bind{}, errors.New("want tcp://host:port or unix:///path")
	}
	if strings.Contains(address, "?") {
		return bind{}, errors.New("options after ? are not supported")
	}
	if network == "unix" {
		if address == "" {
			return bind{}, errors.New("the path of the socket is missing")
		}
		if len(address) > maxUnixPath {
			return bind{}, fmt.Errorf("the path has %d bytes, a socket's may have %d", len(address), maxUnixPath)
		}
		return bind{network, address}, nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		if reason, ok := errors.AsType[*net.AddrError](err); ok {
			return bind{}, errors.New(reason.Err) // the address is in the message already
		}
		return bind{}, err
	}
	return tcpBind(host, port), checkPort(port)
}

func checkPort(s string) error {
	if _, err := strconv.ParseUint(s, 10, 16); err != nil {
		return errors.New("want a port from 0 to 65535")
	}
	return nil
}

func (b bind) listen(ctx context.Context) (net.Listener, error) {
	if b.network == "unix" {
		if err := removeStale(b.address); err != nil {
			return nil, err
		}
	}
	var lc net.ListenConfig
	// TCP_USER_TIMEOUT and the like do not work on Go's default, Multipath TCP.
	lc.SetMultipathTCP(false)
	return lc.Listen(ctx, b.network, b.address)
}

// removeStale removes a socket that a server left behind when it was killed.
// As in Puma, one that still answers is somebody's.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the abstract namespace ends here as well
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("there is a file with this name, and it is not a socket")
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
		return errors.New("there is already a server bound to it")
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// urlOf names a listener as one would type it into a client.
func urlOf(l net.Listener) string {
	if addr := l.Addr(); addr.Network() == "unix" {
		return "unix://" + addr.String()
	}
	return "http://" + l.Addr().String()
}
