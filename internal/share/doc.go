// Package share lets the workers of one master listen on the same addresses. The
// master opens each address once and keeps it open while workers come and go, so
// that connections wait in the kernel's queue and are not refused.
//
// In the master a [Registry] has the addresses. A worker asks for one. What it gets depends
// on the policy of the address:
//
//   - [Shared]: the socket itself. Every worker accepts on it.
//   - [RoundRobin], [LeastConnections]: a key. A dispatcher accepts in the master, and hands
//     one connection at a time to a worker.
//   - [Sharded], [ByClient]: a key. The address has many sockets, which change hands, and each
//     worker gets some of them: see shards.go.
//
// In a worker an [Asker] asks, and makes a source of connections of the answer: a listener of
// package net, a handedQueue of what the dispatcher hands over, or a shardSource. The
// worker's listener accepts from that source.
//
// The groups of UDP sockets of package flow are apart from that: FlowGroups has them in the
// master, and a FlowPlace is a worker's place in one.
//
// A service manager may keep the sockets beyond this process: see stored.go.
//
// The Registry owns the sockets until their address ends (see ending.go). Their number is
// bounded (see bounds.go). The dispatcher owns the connections that no worker has taken yet,
// the handedQueue those that Accept has not returned yet. A [handle.Closer] closes what
// workers have as well, connections above all, since a worker can make a close wait.
//
// A dispatcher has one goroutine for each socket, which accepts until close. While there are
// sharded addresses, one goroutine looks for workers that hang (see patrol.go). Questions are
// answered on the goroutines of their callers.
//
// The entries of the Registry have no lock: they belong to the mailbox that [Host].Turn runs
// functions in. The orders to disconnect come from the same mailbox, so an address is granted
// to a worker either before that order goes out or not at all.
//
// There are seven locks, and no two are held at once: those of a dispatcher, of an Asker, of
// a FlowPlace, of a handedQueue, of the two lists of sockets that are open before anybody
// asks, and the one that orders what the master is told of a worker's room. Nothing is sent
// and no [Member] is called while one is held, with two exceptions: a dispatcher calls
// Member.Load, which does not wait, and what the master is told of room is sent under the
// lock that orders it.
//
// Dispatcher, queue and registry are tested against members and links made by
// hand; what peers may write about addresses is fuzzed.
package share
