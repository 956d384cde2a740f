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
	"os"
	"time"
)

// Key is the key of the [Core] in a context of the cluster.
type Key struct{}

// Core is a process of the cluster as package admin uses it. Any goroutine may call
// its methods. A stop that they return unregisters fn, and does not wait for a call of fn
// that is under way.
type Core interface {
	// OnStream registers fn to serve the connections that the master opens to this worker.
	// fn is called on a goroutine of its own for each, and closes the connection. While no
	// fn is registered they are closed at once. In a master fn is never called.
	OnStream(fn func(c net.Conn)) (stop func())

	// The other methods are the master's.

	// OpenStream opens a connection to the worker with that id. It does not wait for the
	// worker, which may be stopped. The error wraps errs.Backlog while the worker has not
	// taken 8 others yet, errs.NotSupported for a program without this package and on
	// Windows, and errs.Closed if the worker is gone.
	OpenStream(worker int) (net.Conn, error)

	// OnReloading registers fn for the beginning of every reload, OnScale for every
	// change of how many workers there should be. They are called in order with the
	// callbacks of OnReload.
	OnReloading(fn func()) (stop func())
	OnScale(fn func(workers int)) (stop func())
	// OnTrouble registers fn for the errors that OnError tells. It does not keep an error
	// from the log, as a callback of OnError does. worker is 0 if the error is about none.
	OnTrouble(fn func(worker int, err error)) (stop func())

	// OnSilent registers fn for a worker that has not answered the watchdog for half of
	// its timeout; left is the rest of the timeout. OnStall registers fn for a worker that
	// is given up. The worker is ended when fn has returned, or after three seconds. Both
	// are called on goroutines of their own.
	OnSilent(fn func(worker int, left time.Duration)) (stop func())
	OnStall(fn func(worker int)) (stop func())

	// OnOutput registers fn for the output of workers that are forked or adopted from now
	// on, beside Options.Output. stream is "stdout" or "stderr", lines are whole lines of at
	// most 64 KiB each. The goroutine that copies the output calls fn before it passes the
	// lines on, and fn must not keep them. Output that a worker of this package would
	// inherit then goes through the master, as long as there is one. fn is not told of
	// output to a file or to io.Discard, nor of what another program inherits.
	OnOutput(fn func(worker, slot int, stream string, lines []byte)) (stop func())

	// OnLeaving registers fn, which an upgrade calls for a file that it hands to the new
	// program under the name; nil is none. While fn runs, no callback runs and no output is
	// copied, and the upgrade waits. An error of fn calls the upgrade off. The core closes
	// the file.
	OnLeaving(name string, fn func() (*os.File, error)) (stop func())
	// Left returns the file that the program before an upgrade has handed over under the
	// name, or nil. The core closes it in AutoFork, Run or Fork.
	Left(name string) *os.File
	// NewFile makes a file without a name. The caller closes it, or returns it from a
	// function of OnLeaving.
	NewFile() (*os.File, error)

	// Restart replaces the worker of the slot, or fills the slot if it is empty. The old
	// worker goes on until the new one is up. Restart returns when the old one is gone, or
	// the error of a new one that does not come up. ctx bounds the call, not the restart.
	Restart(ctx context.Context, slot int) error
	// Vacate drains the worker of the slot and leaves the slot empty. It returns when the
	// worker is gone. ctx bounds the call, not the drain.
	Vacate(ctx context.Context, slot int) error
	// Respawn kills the worker of the slot. It returns when the worker is gone, and the
	// slot is filled again at once.
	Respawn(ctx context.Context, slot int) error

	// Health tells whether the cluster does its work.
	Health() Health
	// Totals returns the counts since the master began, with those of workers that are
	// gone.
	Totals() Totals
}

// Totals are counts of the whole cluster.
type Totals struct {
	MessagesIn, MessagesOut int64 // from workers, to workers
	Resident                int64 // memory of the master now, in bytes; 0 if it is not known
}

// Health is how a cluster is.
type Health struct {
	Up       int  // workers that are up
	Need     int  // how many of them the cluster needs: Options.MinReady, or all
	Stopping bool // a stop has begun, or was announced
}
