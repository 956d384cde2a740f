package cluster

import (
	"context"
	"io/fs"
	"net"

	"github.com/go-cluster/cluster/internal/socket"
)

// ListenConfig has the options of a listening socket. The zero value is what
// [Listen] uses.
type ListenConfig struct {
	// Backlog is the length of the queue of connections that nobody has
	// accepted yet. Default: the system's limit (net.core.somaxconn on Linux).
	// The first worker that asks for an address decides.
	Backlog int

	// Exclusive opens the socket in this worker alone, without the master: no
	// other process can have the same address, and connections to it are lost
	// with the worker. It is reported, counts for ready and drains all the same.
	Exclusive bool

	// IPv6Only makes a wildcard or IPv6 address take no IPv4 connections.
	IPv6Only bool

	// MultipathTCP opens an MPTCP socket, which package net does by default and
	// this package does not: some socket options and node peers cannot use one.
	MultipathTCP bool

	// KeepAlive is set on every accepted connection. The zero value is package
	// net's default: probes after 15 s.
	KeepAlive net.KeepAliveConfig

	// Mode is the permission of a unix socket's file. Default: what the umask
	// leaves of 0777.
	Mode fs.FileMode

	// Scheduling, unless zero, is used for this address in place of
	// Options.Scheduling. The first worker that asks for an address decides.
	Scheduling Scheduling
}

// Listen announces on an address: tcp, tcp4, tcp6 or unix. In a worker the
// socket is shared: the master opens it once and keeps it open until Disconnect,
// so that connections wait, and are not refused, while workers come and go. The
// n-th Listen on port 0 is the same port in every worker. The listener stops by
// itself when the worker is drained: Accept then waits, for an error would make
// most programs exit and cut off what is in flight.
//
// In a master that has forked, Listen holds the address open for the workers
// and its Accept waits until it is closed. In any other process it is net.Listen.
//
// The error wraps the system's, wherever it arose: errors.Is(err,
// syscall.EADDRINUSE) holds in the worker too, and on Windows, where it is
// windows.WSAEADDRINUSE as well, and unix sockets are ErrNotSupported. A unix socket's file that a dead
// process left behind is replaced; the file of a live one is EADDRINUSE.
func Listen(network, address string) (net.Listener, error) {
	return ListenConfig{}.Listen(context.Background(), network, address)
}

// ListenPacket announces on an address for datagrams: udp, udp4, udp6 or
// unixgram. As with [Listen], workers share one socket: each datagram goes to
// one of them. On Windows they cannot: there it is ErrNotSupported, unless the
// socket is Exclusive or the process no worker.
func ListenPacket(network, address string) (net.PacketConn, error) {
	return ListenConfig{}.ListenPacket(context.Background(), network, address)
}

// Listen is [Listen] with these options. ctx bounds the wait for the master's
// answer, not the listener's life.
func (lc ListenConfig) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	t, err := newTarget(network, address, lc)
	if err == nil && socket.IsPacket(network) {
		err = net.UnknownNetworkError(network)
	}
	if err == nil {
		err = socket.Supported(t.Address, Worker != nil && !lc.Exclusive || Worker == nil && std.forked.Load())
	}
	if err != nil {
		return nil, listenError(t, err, "")
	}
	switch {
	case Worker != nil:
		return Worker.inside.listen(ctx, t, lc)
	case std.forked.Load():
		e, err := std.hold(ctx, t)
		if err != nil {
			return nil, err
		}
		return &heldListener{addr: t.Shown(e.addr), closed: make(chan struct{})}, nil
	}
	ln, err := socket.Listen(ctx, t.Address, lc.KeepAlive)
	if err != nil {
		return nil, listenError(t, err, "")
	}
	std.registry.plain.add(t, ln.Addr(), ln)
	return ln, nil
}

// ListenPacket is [ListenPacket] with these options.
func (lc ListenConfig) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	t, err := newTarget(network, address, lc)
	if err == nil && !socket.IsPacket(network) {
		err = net.UnknownNetworkError(network)
	}
	if err == nil {
		err = socket.Supported(t.Address, Worker != nil && !lc.Exclusive || Worker == nil && std.forked.Load())
	}
	if err != nil {
		return nil, listenError(t, err, "")
	}
	switch {
	case Worker != nil:
		return Worker.inside.listenPacket(ctx, t, lc)
	case std.forked.Load():
		e, err := std.hold(ctx, t)
		if err != nil {
			return nil, err
		}
		return holdPacket(t, e)
	}
	c, err := socket.ListenPacket(ctx, t.Address)
	if err != nil {
		return nil, listenError(t, err, "")
	}
	std.registry.plain.add(t, c.LocalAddr(), c)
	return c, nil
}
