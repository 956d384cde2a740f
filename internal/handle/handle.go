// Package handle has descriptors with several holders. A listening socket is held by the
// master's registry and by the channel that is to pass it on, a connection by the
// dispatcher's queue and by the channel. The holder that releases it last closes it.
//
// A [Handle] owns its descriptor from New on. Each holder has one reference: New
// gives the first, Retain one more, Release takes one away. A function that
// "takes over" a handle takes over the caller's reference. There is no lock: the
// references are one atomic counter, and the descriptor never changes.
//
// On Windows the descriptor is a SOCKET. Duplicate and Adopt carry it to another process as
// text, since a pipe carries nothing beside its bytes. A [Watch] waits there for a kernel
// object without keeping a thread. Watches share one table, under a lock of its own that is
// never held while another is taken.
//
// A [Closer] closes descriptors that another process has or had as well, on a goroutine of
// its own if the close may wait. A Closer has a lock, under which nothing is closed and no
// other lock is taken.
//
// Touched tells a connection that a worker has begun to serve from one that may still be
// given to another worker. It is tested with real connections, in package cluster. The
// Closer is tested with sockets that linger.
package handle

import "sync/atomic"

// Handle is a descriptor (on Windows: a SOCKET) with several holders. The last one to
// release it closes it, and nobody closes the descriptor directly.
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

// CloseBy makes close, a method of a [Closer], close the descriptor. It is for descriptors
// that other processes have as well. Only the maker of h may call it, before anybody else
// has h. It returns h.
func (h *Handle) CloseBy(close func(fd int)) *Handle {
	h.close = close
	return h
}

// FD returns the descriptor. It stays open for as long as the caller has a reference.
func (h *Handle) FD() int { return h.fd }

// Retain adds a reference, for another holder, and returns h.
func (h *Handle) Retain() *Handle {
	h.refs.Add(1)
	return h
}

// Release gives up one reference. For a nil handle it does nothing.
func (h *Handle) Release() {
	if h != nil && h.refs.Add(-1) == 0 {
		h.close(h.fd)
	}
}

// Taken has the descriptors that are taken over from the program that this process ran
// before an upgrade, by number. One descriptor may have had several holders there.
type Taken map[int]*Handle

// Take returns a reference to the descriptor. The first call for a number makes its Handle,
// which owns the descriptor.
func (t Taken) Take(fd int) *Handle {
	if h := t[fd]; h != nil {
		return h.Retain()
	}
	h := New(fd)
	t[fd] = h
	return h
}
