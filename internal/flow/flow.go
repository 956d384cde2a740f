// Package flow is what package quic, a module of its own, gets from the core beyond the
// public API: sockets of one UDP address of which each datagram finds the worker that
// has its connection.
//
// The master opens the group (socket.Flows). Its first sockets are shares: they take what
// begins a connection, and each is read by one worker that takes connections. Behind them
// each worker has a socket of its own for life. The IDs that it gives its connections
// begin with the group's tag and the number of that socket, so that the kernel finds it,
// wherever the client is now. A worker that drains gives up its shares and goes on reading
// its own socket. When it is dead the next worker that joins has that socket: it knows none
// of the connections, and tells their clients so by the reset key that all workers have.
//
// A context of the cluster ([Key]) leads to the [Core] of its process, so that the root
// exports nothing for it. The master's half of the implementation is share.Registry, the
// worker's is share.Asker; here are only types and the layout of an ID. So nothing here
// owns a descriptor or a goroutine, and there is no lock.
//
// The group is tested in package socket, who reads what in package share, and all of it by
// package quic with real processes and clients.
package flow

import (
	"context"
	"encoding/binary"
	"net"
)

// Key is what a context of the cluster has its process's [Core] under.
type Key struct{}

// IDLength is how many bytes a connection ID of a group has: the tag, the cookie, and 8
// of the worker's choice.
const IDLength = tagLength + cookieLength + 8

const (
	tagLength    = 4
	cookieLength = 2

	// MaxCookies is how many workers can have sockets of their own at a time.
	MaxCookies = 1 << (8 * cookieLength)
)

// AppendID appends the beginning of a connection ID of the worker whose socket is the
// cookie-th behind the shares.
func AppendID(b []byte, tag [tagLength]byte, cookie int) []byte {
	return binary.BigEndian.AppendUint16(append(b, tag[:]...), uint16(cookie))
}

// Core is a process of the cluster as package quic uses it.
type Core interface {
	// Join asks the master for a place in the group of the UDP address, which the first
	// to ask has it open. ctx bounds the wait. In a master that has forked it holds the
	// address open for the workers, and the Place has no more than Addr and Close. In a
	// process that is neither worker nor such a master it returns nil.
	//
	// The error wraps errs.NotSupported where the system lacks what it needs, or the
	// master is node's.
	Join(ctx context.Context, network, address string) (Place, error)
}

// Place is a worker's place in a group. Any goroutine may call its methods.
type Place interface {
	Addr() net.Addr
	// ID returns the tag of the group and the cookie of this worker.
	ID() (tag [4]byte, cookie int)
	// Keys return what all workers have for stateless resets and for tokens.
	Keys() (reset, token [32]byte)
	// Own asks for the socket of this worker, and Share for that of an index which Take
	// has told. Each may be had once; the caller closes it. An error may be one of a
	// moment: no descriptor is free.
	Own(ctx context.Context) (*net.UDPConn, error)
	Share(ctx context.Context, index int) (*net.UDPConn, error)
	// Take says that this worker takes connections. read is called with the indexes of
	// the shares that it is to read, now and as that changes, one call after another;
	// it must not wait. While the worker is full there are none; in a drain it is not
	// called any more. The first call counts.
	Take(read func(shares []int))
	// Received says that a share was read: by that the master knows that it is not left.
	Received()
	// Connects takes one of the places that the worker has for connections, whether one
	// is left or not. accepted is to be called when the program has the connection, ended
	// when it is no more, once each.
	Connects() (accepted, ended func())
	// Full reports whether no place is left.
	Full() bool
	// Orphaned is closed when the master is gone: its successor needs the address, so
	// that everything is to be closed.
	Orphaned() <-chan struct{}
	// Close gives the place back.
	Close() error
}
