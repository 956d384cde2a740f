// Package share lets the workers of one master listen on the same addresses. The
// master opens each address once and keeps it open while workers come and go, so
// that connections wait in the kernel's queue and are not refused.
//
// In the master a [Registry] holds the addresses. A worker asks for one, and is
// answered with the socket itself (the policy [Shared]: every worker accepts on
// it) or with its key: then a dispatcher accepts in the master and hands over one
// connection at a time ([RoundRobin], [LeastConnections]), or the address has many sockets,
// of which the worker is given some and which change hands ([Sharded], [ByClient]: see
// shards.go). In a worker an [Asker] asks, and makes of the
// answer the source of connections that a listener accepts from: a listener of
// package net, a handedQueue of what the dispatcher hands over, or a shardSource.
//
// Groups of UDP sockets, which package flow tells of, are beside that: FlowGroups has them
// in the master, a FlowPlace is a worker's place in one.
//
// A service manager may keep the sockets beyond this process: see stored.go.
//
// The Registry owns the sockets, of which there is a bound (see bounds.go), until
// their address ends (see ending.go), the dispatcher the connections that no worker
// has taken yet, the handedQueue those that Accept has not returned yet. A dispatcher
// has one goroutine for each socket, which accepts; it ends with its close. While there are
// sharded addresses there is one that looks for workers that hang (see patrol.go). Questions
// are answered on their callers' goroutines. What workers have as well, a connection
// above all, is closed by a [handle.Closer]: a worker can make its close wait.
//
// The entries of the Registry have no lock: they belong to the mailbox that
// [Host].Turn runs functions in. It is the same that orders workers to disconnect,
// so that an address is granted either before that order goes out or not at all.
// There are seven locks, none of which is taken while another one is held: that
// of a dispatcher, of an Asker, of a FlowPlace, of a handedQueue, of the two lists of sockets
// that are open before anybody asks, and of what the master is told of a worker's room.
// Nothing is sent and no [Member] is called under them, with two exceptions: a
// dispatcher asks for Member.Load, which does not wait, and what the master is told is sent
// under the lock that orders it.
//
// Dispatcher, queue and registry are tested against members and links made by
// hand; what peers may write about addresses is fuzzed.
package share
