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
// A descriptor that another process has or had as well is closed by a [Closer], on
// a goroutine of its own if its close may wait. A Closer has a lock, under which
// nothing is closed and no other lock is taken.
//
// Touched tells a connection that somebody has begun to serve from one that may
// still be given to somebody else. It is tested with real connections, in
// package cluster. The Closer is tested with sockets that linger.
package handle

import "sync/atomic"

// Handle is a descriptor (on Windows: a socket) with several holders. The last
// one to release it closes it; nobody closes fd itself.
type Handle struct {
	fd    int
	refs  atomic.Int32
	close func(fd int)
}

// New takes ownership of fd, with one reference for the caller.
func New(fd int) *Handle {
	h := &Handle{fd: fd, close: closeFD}
	h.refs.Store(1)
	return h
}

// CloseBy lets close close the descriptor, for one that other processes have too: a
// method of a [Closer]. It returns h, and is for who has just made h.
func (h *Handle) CloseBy(close func(fd int)) *Handle {
	h.close = close
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
		h.close(h.fd)
	}
}

// Taken are the descriptors that another program of this process had, as they are taken
// over: one number may have had several holders.
type Taken map[int]*Handle

// Take returns a reference to the descriptor, which is owned from the first call on.
func (t Taken) Take(fd int) *Handle {
	if h := t[fd]; h != nil {
		return h.Retain()
	}
	h := New(fd)
	t[fd] = h
	return h
}
