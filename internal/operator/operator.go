// Package operator is what package admin, a module of its own, gets from the core
// beyond the public API: connections to workers, orders for one slot, and what is
// observed without a callback of the application's.
//
// A context of the cluster ([Key]) leads to the [Core] of its process, so that the
// root exports nothing for it. The root implements it; here are only its types. So
// nothing here owns a descriptor or a goroutine, and there is no lock.
//
// Its tests are the root's (streams, orders) and package admin's, with real
// processes.
package operator

import (
	"context"
	"net"
	"time"
)

// Key is what a context of the cluster has its process's [Core] under.
type Key struct{}

// Core is a process of the cluster as package admin uses it. Any goroutine may call
// its methods. What they return as stop unregisters; a call under way goes on.
type Core interface {
	// OnStream registers what serves the connections that the master opens to this
	// worker. Each call is on a goroutine of its own, and fn closes the connection.
	// Without one they are closed at once. In a master it is never called.
	OnStream(fn func(c net.Conn)) (stop func())

	// The other methods are the master's.

	// OpenStream opens a connection to the worker with that id. It does not wait for
	// the worker, which may be stopped. The error wraps errs.Backlog while 8 are on
	// their way to it that it has not taken, errs.NotSupported for a program without
	// this package and on Windows, errs.Closed if it is gone.
	OpenStream(worker int) (net.Conn, error)

	// OnReloading registers fn for the beginning of every reload, OnScale for every
	// change of how many workers there should be. They are called in order with the
	// callbacks of OnReload.
	OnReloading(fn func()) (stop func())
	OnScale(fn func(workers int)) (stop func())
	// OnTrouble registers fn for what OnError tells; unlike there, an error that
	// nothing else takes is logged as well. worker is 0 if it is about none.
	OnTrouble(fn func(worker int, err error)) (stop func())

	// OnSilent registers fn for a worker that has not answered the watchdog for half of
	// its timeout; left is the rest. OnStall registers fn for one that is given up: fn is
	// called before it is ended, which waits for fn, but for no longer than three seconds
	// in all. Both are called on goroutines of their own.
	OnSilent(fn func(worker int, left time.Duration)) (stop func())
	OnStall(fn func(worker int)) (stop func())

	// OnOutput registers fn for what workers write that are forked or adopted from now on,
	// beside Options.Output: whole lines of "stdout" or "stderr", of 64 KiB at most each. It is
	// called by the goroutine that copies, before they are passed on, and keeps no part
	// of lines. What a worker of this package would inherit passes through the master
	// then, until the master is gone; what goes to a file or to io.Discard, and what
	// another program inherits, is not told.
	OnOutput(fn func(worker, slot int, stream string, lines []byte)) (stop func())

	// Restart replaces the worker of the slot, the new one being up first, or fills
	// the slot if it is empty. It returns when the old one is gone; what is wrong
	// with the new one is the error. ctx bounds the call, not the restart.
	Restart(ctx context.Context, slot int) error
	// Vacate drains the worker of the slot, which then stays empty, and returns when
	// it is gone. ctx bounds the call, not the drain.
	Vacate(ctx context.Context, slot int) error
	// Respawn kills the worker of the slot, which is filled again at once. It returns
	// when the old one is gone.
	Respawn(ctx context.Context, slot int) error

	// Health tells whether the cluster does its work.
	Health() Health
	// Totals tells what was counted since the master began, of workers that are gone
	// as well.
	Totals() Totals
}

// Totals are counts of the whole cluster.
type Totals struct {
	MessagesIn, MessagesOut int64 // from workers, to workers
	Resident                int64 // bytes of memory that the master has now; 0 if that is not known
}

// Health is how a cluster is.
type Health struct {
	Up       int  // workers that do their work
	Need     int  // how many must: Options.MinReady, or all
	Stopping bool // a stop has begun, or been announced
}
