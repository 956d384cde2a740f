// Package errs has the errors that callers of the cluster tell apart with
// errors.Is. They stand here, below every other package, so that each layer can
// return and wrap them. Package cluster exports them, with Err in front of the
// names, and documents them.
//
// An error of a room that no caller tells apart belongs to that room, not here.
// The texts are part of the public API and do not change.
package errs

//lint:file-ignore ST1012 errs.Closed says it; cluster.ErrClosed is the public name.

import (
	"errors"
	"fmt"
)

// The errors, by what they are about.
var (
	NotMaster      = errors.New("only the master can do this, and this process is a worker")
	NotWorker      = errors.New("only a worker can do this, and this process was not forked by a master")
	Closed         = errors.New("the channel is closed")
	Backlog        = errors.New("the peer does not read and MaxQueue is reached")
	NotSupported   = fmt.Errorf("not supported here: %w", errors.ErrUnsupported)
	BootLoop       = errors.New("workers keep dying before they are ready")
	NoWorkers      = errors.New("no workers")
	Stalled        = errors.New("the worker does not answer")
	MessageTooLong = errors.New("message longer than MaxMessage")
	TooLarge       = errors.New("too large")
	TooMany        = errors.New("too many")
)
