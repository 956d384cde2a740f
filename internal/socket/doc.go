// Package socket is about listening sockets: their addresses, how they are opened, and how
// package net's types are made of them.
//
// An [Address] is resolved and has one spelling, so its Key names the socket. [Open] opens
// the socket for many processes. It returns a bare descriptor, which is on no poller: a
// process that only keeps the socket open is not woken for its connections. [Listen] and
// [ListenPacket] open the socket for this process alone. [NewListener], [NewPacketConn] and
// [NewConn] make package net's types of a descriptor that another process opened. An
// [Acceptor] accepts connections as bare descriptors.
//
// On Linux several sockets can have one address. [OpenGroup] opens such a group. A [Merged]
// accepts from some of its sockets, a [MergedPackets] reads datagrams from some, and a
// [Traffic] tells when the first connection comes to any. [OpenFlows] opens a group of UDP
// sockets among which the kernel chooses by what a datagram says. A [Watch] tells that a
// worker has broken a socket that it shares, and [Relisten] mends it.
//
// On Windows package net cannot make its types of a socket that other processes go on using.
// So this package has a listener and a connection of its own there. If another process has
// put a socket on its completion port, they use calls that report to events.
//
// The file of a unix socket is made, changed and removed at a place: a name in one open
// directory. For a master whose workers run as another user the way to that directory is
// guarded: no symbolic link is followed that another user could have made.
//
// Descriptors have owners. A [handle.Handle] that is returned belongs to the caller, and the
// constructors of net's types take a duplicate or a reference of their own. The only
// goroutines are those that close the sockets of a MergedPackets, since a read of one may
// still be under way.
//
// A Merged and a MergedPackets have a lock for their list and one for each socket, a Traffic
// has one; of these only one is held at a time. On Windows the calls on a socket have a lock,
// under which no other is taken but that of the handle's watches. A connection by events has
// one for its reader and one for its writer, which are taken before that.
//
// Addresses are tested by tables and by fuzzing (in package share, where they come from a
// peer), sockets by using them, those of Windows under Wine as well.
package socket
