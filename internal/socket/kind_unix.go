//go:build unix

package socket

import (
	"net"

	"github.com/go-cluster/cluster/internal/handle"
	"golang.org/x/sys/unix"
)

// KindOf returns the kind of h. network is that of a datagram socket: udp4, udp6 or
// unixgram.
func KindOf(h *handle.Handle) (k Kind, network string) {
	typ, err := unix.GetsockoptInt(h.FD(), unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return File, ""
	}
	sa, err := unix.Getsockname(h.FD())
	if err != nil {
		return File, ""
	}
	switch sa.(type) {
	case *unix.SockaddrInet4:
		network = "udp4"
	case *unix.SockaddrInet6:
		network = "udp6"
	case *unix.SockaddrUnix:
		network = "unixgram"
	default: // package net has no type for it
		return File, ""
	}
	switch typ {
	case unix.SOCK_DGRAM:
		return Packet, network
	case unix.SOCK_STREAM, unix.SOCK_SEQPACKET:
		if n, err := unix.GetsockoptInt(h.FD(), unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && n != 0 {
			return Listener, ""
		}
		return Stream, ""
	}
	return File, ""
}

// connected returns c, or an error if c was reset before this process had it. Such a
// connection has no peer any more. Package net makes one of it all the same, whose
// RemoteAddr is nil.
func connected(c net.Conn) (net.Conn, error) {
	if c.RemoteAddr() != nil {
		return c, nil
	}
	local := c.LocalAddr()
	c.Close()
	return nil, &net.OpError{Op: "receive", Net: local.Network(), Source: local, Err: unix.ENOTCONN}
}

// Sendable returns an error if a descriptor of the kind and network cannot go to another
// process. Here all can.
func Sendable(Kind, string) error { return nil }
