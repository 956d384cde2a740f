// Package handle has descriptors with several holders. A listening socket is held
// by the registry of the master and by the channel that is to pass it on, a
// connection by the round-robin queue and by the channel; whoever releases it
// last closes it.
//
// A [Handle] owns its descriptor from New on. Each holder has one reference: New
// gives the first, Retain one more, Release takes one away. A function that
// "takes over" a handle takes over the caller's reference. There is no lock: the
// references are one atomic counter, and the descriptor never changes.
//
// On Windows the descriptor is a SOCKET. Duplicate and Adopt carry one to another
// process as text, since nothing can go beside the bytes of a pipe; and a [Watch]
// waits for a kernel object without keeping a thread. Watches share one table,
// under a lock of its own that is never held while another is taken.
//
// Touched tells a connection that somebody has begun to serve from one that may
// still be given to somebody else. It is tested with real connections, in
// package cluster.
package handle

import "sync/atomic"

// Handle is a descriptor (on Windows: a socket) with several holders. The last
// one to release it closes it; nobody closes fd itself.
type Handle struct {
	fd   int
	refs atomic.Int32
}

// New takes ownership of fd, with one reference for the caller.
func New(fd int) *Handle {
	h := &Handle{fd: fd}
	h.refs.Store(1)
	return h
}

// FD returns the descriptor, which stays open for as long as the caller
// has a reference.
func (h *Handle) FD() int { return h.fd }

// Retain adds a reference, for another holder, and returns h.
func (h *Handle) Retain() *Handle {
	h.refs.Add(1)
	return h
}

// Release gives up one reference. A nil handle has none, and nothing happens.
func (h *Handle) Release() {
	if h != nil && h.refs.Add(-1) == 0 {
		closeFD(h.fd)
	}
}
