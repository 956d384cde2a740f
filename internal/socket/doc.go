// Package socket is about one listening socket: what it is asked for as, how it
// is opened, and what package net's types are made of it.
//
// An [Address] is resolved and in one spelling, so that its Key names the socket.
// [OpenFlows] opens several for one UDP address, among which the kernel chooses by what a
// datagram says. [Open] opens it for many processes and returns a bare descriptor, which is on
// no poller: a process that only keeps a socket open is not woken for its
// connections. [Listen] and [ListenPacket] open it for this process alone.
// [NewListener], [NewPacketConn] and [NewConn] make package net's types of a
// descriptor that another process opened; an [Acceptor] accepts bare descriptors.
// On Linux [OpenGroup] opens several sockets of one address, a [Merged] accepts from some
// of them, and a [Traffic] tells when the first connection comes to any.
// On Windows package net has no way from a socket to its own types that leaves
// the socket usable by other processes, so that this package has a listener and
// a connection of its own there. What another process has on its completion port is
// used by calls that report to events.
//
// The file of a unix socket is made, changed and removed at a place: a name in one
// open directory. For a master whose workers are another user the way there is
// guarded: no symbolic link that somebody else could have made is followed.
//
// Descriptors have owners: what is returned as a [handle.Handle] belongs to the
// caller, and the constructors of net's types take a duplicate or a reference of
// their own. Nothing here starts a goroutine. There are locks in a Merged, that of its
// list and one for each socket, of which one at a time is held; and on Windows: that of the calls on a socket, under which no other is taken but that of the
// handle's watches, and those of who reads and who writes a connection by events,
// which come before it.
//
// Addresses are tested by tables and by fuzzing (in package share, where they
// come from a peer), sockets by using them, those of Windows under Wine as well.
package socket
