// Package channel has the bytes between two processes, and the descriptors beside
// them. A [Channel] is one end: of a socketpair on Unix, of a named pipe on
// Windows, where a socket travels as text in the line itself. Attach and Claim
// hide that difference from the layers above.
//
// Pair makes a channel in the master, Inherit takes the worker's end over. A
// Channel owns its descriptor and is non-blocking, on the runtime's poller, so
// that waiting keeps no thread. One goroutine at a time
// may receive (Recv, TryRecv, Unread, WaitHangup) and one at a time send (Send,
// WaitRoom). Interrupt, Resume and Close may be called by any goroutine. The receiver owns
// the descriptors of an [Input] and has to claim or drop them. In the master they
// are closed on goroutines of a [handle.Closer], since closing a descriptor that a worker
// has sent may take for ever. No other goroutine is started here.
//
// On Unix there is no lock. On Windows one lock guards what Close and a write
// under way share; it is not held while anything is waited for.
//
// The package is tested through package link, which feeds it every kind of peer;
// the tests here are of what Windows does differently.
package channel

import (
	"errors"
	"time"
)

// FullRead is how much is read at once, in bytes.
const FullRead = 16 << 10

// maxLines is how many lines a buffer that is kept for reuse has room for.
const maxLines = 2048

// clearLines empties the list.
func (in *Input) clearLines() {
	clear(in.Lines)
	if in.Lines = in.Lines[:0]; cap(in.Lines) > maxLines {
		in.Lines = nil
	}
}

var (
	// ErrWouldBlock says that the kernel takes or has nothing now.
	ErrWouldBlock = errors.New("channel: would block")

	// ErrForeign says that the other end speaks something else than lines of JSON,
	// as node does over the pipes of Windows.
	ErrForeign = errors.New("channel: the other end is a node primary's")
)

// maxUnclosed bounds the descriptors that wait here to be closed: a worker can make each
// close take long. On Unix one read brings up to 253. unclosedTime is how long Closes
// waits for their number to fall.
const (
	maxUnclosed  = 128
	unclosedTime = time.Second
)

// Closes reports whether the descriptors that were received and given up are closed, but
// for maxUnclosed of them. It waits for a second at most.
func (c *Channel) Closes() bool {
	return c.closer == nil || c.closer.Await(maxUnclosed, unclosedTime)
}
