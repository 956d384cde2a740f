// Package admin is the operator's side of a cluster: its state, its events, the
// profiles of any worker, and orders, on a unix socket of the master's or on an
// address of its own. Behind one shared port each request reaches some worker; here
// the master answers for all of them.
//
//	admin.Start(admin.Options{})   // in every process, before AutoFork
//	cluster.AutoFork()
//
//	curl --unix-socket $XDG_RUNTIME_DIR/cluster/web.sock http://cluster/stats
//
// [Start] tells who may do what, and docs/operations.md what there is to ask.
//
// In the master one server has the socket and the address; a goroutine each
// accepts, and package net/http has one for each connection. In a worker there is a
// server for the connections that the master opens to it (package internal/operator),
// and no address. The journal of events is written by the callbacks of the cluster
// and read by whoever follows it: its lock is taken alone, and nothing waits for a
// reader.
//
// The tests are clusters of real processes that are asked over their socket, also by
// go tool pprof.
package admin
