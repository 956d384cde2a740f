package cluster

import (
	"fmt"

	"github.com/go-cluster/cluster/internal/errs"
)

var (
	// ErrNotMaster is returned when a call that only the master can make is
	// made in a worker.
	ErrNotMaster = errs.NotMaster

	// ErrNotWorker is returned when a call that only a worker can make is made
	// in another process; its methods on a nil [Worker] are such calls.
	ErrNotWorker = errs.NotWorker

	// ErrClosed is returned when the channel or the worker is gone, and by Fork
	// and AutoFork while a Disconnect is under way.
	ErrClosed = errs.Closed

	// ErrBacklog is returned by Send when Options.MaxQueue bytes wait for a
	// peer that does not read.
	ErrBacklog = errs.Backlog

	// ErrNotSupported is returned for what this system, or a node peer, cannot
	// do. It wraps [errors.ErrUnsupported].
	ErrNotSupported = errs.NotSupported

	// ErrBootLoop is returned by Run when MaxBootFailures workers in a row
	// died in one slot before they were ready, and no worker ever was.
	ErrBootLoop = errs.BootLoop

	// ErrNoWorkers is returned by Run when every worker has exited with
	// ExitNoRestart, and by Reload when AutoFork keeps none.
	ErrNoWorkers = errs.NoWorkers

	// ErrStalled is reported through OnError when the watchdog ends a worker
	// that has not answered for Watchdog.Timeout.
	ErrStalled = errs.Stalled

	// ErrMessageTooLong is returned by Send, SendContext and Request when the message,
	// or the reply, has more bytes than the side that is to get it takes
	// (Options.MaxMessage). It is reported through OnError when such a message
	// arrived all the same, from a node peer say; it was dropped.
	ErrMessageTooLong = errs.MessageTooLong

	// ErrTooLarge is returned by package coord for a name, a key or a value that is
	// longer than it may be, or that does not fit into MaxMessage or MaxStore.
	ErrTooLarge = errs.TooLarge

	// ErrTooMany is returned by package coord when a process has as many of
	// something as it may: names that it leads, topics, waiting locks.
	ErrTooMany = errs.TooMany
)

// callError names the call that failed. The error tells the way out, or its
// doc does.
func callError(call string, err error) error {
	return fmt.Errorf("cluster: %s: %w", call, err)
}
