package cluster

import (
	"errors"
	"fmt"
)

var (
	// ErrNotMaster is returned when a call that only the master can make is
	// made in a worker.
	ErrNotMaster = errors.New("only the master can do this, and this process is a worker")

	// ErrNotWorker is returned when a call that only a worker can make is made
	// in another process; its methods on a nil [Worker] are such calls.
	ErrNotWorker = errors.New("only a worker can do this, and this process was not forked by a master")

	// ErrClosed is returned when the channel or the worker is gone, and by Fork
	// and AutoFork while a Disconnect is under way.
	ErrClosed = errors.New("the channel is closed")

	// ErrBacklog is returned by Send when Options.MaxQueue bytes wait for a
	// peer that does not read.
	ErrBacklog = errors.New("the peer does not read and MaxQueue is reached")

	// ErrNotSupported is returned for what this system, or a node peer, cannot
	// do. It wraps [errors.ErrUnsupported].
	ErrNotSupported = fmt.Errorf("not supported here: %w", errors.ErrUnsupported)

	// ErrBootLoop is returned by Run when MaxBootFailures workers in a row
	// died in one slot before they were ready, and no worker ever was.
	ErrBootLoop = errors.New("workers keep dying before they are ready")

	// ErrNoWorkers is returned by Run when every worker has exited with
	// ExitNoRestart, and by Reload when AutoFork keeps none.
	ErrNoWorkers = errors.New("no workers")

	// ErrStalled is reported through OnError when the watchdog ends a worker
	// that has not answered for Watchdog.Timeout.
	ErrStalled = errors.New("the worker does not answer")

	// ErrMessageTooLong is reported through OnError when a message of more than
	// Options.MaxMessage bytes arrived; it was dropped.
	ErrMessageTooLong = errors.New("message longer than MaxMessage")
)

// callError names the call that failed. The error tells the way out, or its
// doc does.
func callError(call string, err error) error {
	return fmt.Errorf("cluster: %s: %w", call, err)
}
