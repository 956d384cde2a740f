// Package flow is what package quic, a module of its own, gets from the core beyond the
// public API: a group of sockets of one UDP address, in which the kernel gives each
// datagram to the worker that has its connection.
//
// The master opens the group (socket.Flows). Its first sockets are the shares. The datagrams
// that begin a connection come to them, and each share is read by one of the workers that
// take connections. The other sockets belong to one worker each, for the worker's life.
// A worker begins the IDs of its connections with the group's tag and the number of its own
// socket. By these the kernel finds the socket, wherever the client is now.
//
// A worker that drains gives up its shares and goes on reading its own socket. After its
// death the next worker that joins gets that socket. The new worker knows none of the
// connections. It tells their clients so with the reset key, which all workers have.
//
// A context of the cluster ([Key]) leads to the [Core] of its process, so the root exports
// nothing for package quic. The master's half of the implementation is share.Registry, the
// worker's is share.Asker. Here are only types and the layout of an ID: nothing here owns a
// descriptor or a goroutine, and there is no lock.
//
// Package socket tests the group, package share tests which worker reads which socket, and
// package quic tests all of it with real processes and clients.
package flow

import (
	"context"
	"encoding/binary"
	"net"
)

// Key is the key of the [Core] in a context of the cluster.
type Key struct{}

// IDLength is the length of a connection ID of a group, in bytes: the tag, the cookie, and
// 8 bytes of the worker's choice.
const IDLength = tagLength + cookieLength + 8

const (
	tagLength    = 4
	cookieLength = 2

	// MaxCookies bounds how many workers have sockets of their own at the same time.
	MaxCookies = 1 << (8 * cookieLength)
)

// AppendID appends the beginning of a connection ID: the tag, and the cookie of a worker,
// which is the number of the worker's own socket, counted from 0 behind the shares.
func AppendID(b []byte, tag [tagLength]byte, cookie int) []byte {
	return binary.BigEndian.AppendUint16(append(b, tag[:]...), uint16(cookie))
}

// Core is a process of the cluster as package quic uses it.
type Core interface {
	// Join asks the master for a place in the group of the UDP address. The master opens
	// the group for the first worker that asks. ctx bounds the wait. In a master that has
	// forked, Join holds the address open for the workers, and of the Place's methods only
	// Addr and Close may be called. In a process that is neither a worker nor such a master
	// the Place is nil.
	//
	// The error wraps errs.NotSupported if the system cannot do it, or if the master is
	// node's.
	Join(ctx context.Context, network, address string) (Place, error)
}

// Place is a worker's place in a group. Any goroutine may call its methods.
type Place interface {
	Addr() net.Addr
	// ID returns the tag of the group and the cookie of this worker.
	ID() (tag [4]byte, cookie int)
	// Keys returns the keys that all workers share: one for stateless resets, one for tokens.
	Keys() (reset, token [32]byte)
	// Own asks for the worker's own socket, and Share for the share with an index that
	// read was called with (see Take). Each socket can be had once, and the caller closes
	// it. An error may be a passing one: no descriptor was free.
	Own(ctx context.Context) (*net.UDPConn, error)
	Share(ctx context.Context, index int) (*net.UDPConn, error)
	// Take says that this worker takes connections. read is called with the indexes of the
	// shares that the worker is to read: now, and whenever they change, one call after
	// another. read must not wait. A full worker gets no shares. In a drain read is not
	// called any more. Only the first call of Take counts.
	Take(read func(shares []int))
	// Received says that a share was read. So the master knows that somebody reads it.
	Received()
	// Connects counts one more connection of this worker, even if the worker is full. The
	// caller calls accepted when the program has the connection, and ended when the
	// connection is gone, once each.
	Connects() (accepted, ended func())
	// Full reports whether the worker has as many connections as it may have.
	Full() bool
	// Room returns how many places are left, less than 0 if more are taken than there are,
	// and false if there is no bound.
	Room() (places int, bounded bool)
	// Orphaned is closed when the master is gone. The worker is to close all its sockets
	// then, since the next master needs the address.
	Orphaned() <-chan struct{}
	// Close gives the place back.
	Close() error
}
