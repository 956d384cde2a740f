package cluster

import "sync/atomic"

// handle is a descriptor (on Windows: a socket) with several holders. The last
// one to release it closes it; nobody closes fd itself.
type handle struct {
	fd   int
	refs atomic.Int32
}

// newHandle takes ownership of fd, with one reference for the caller.
func newHandle(fd int) *handle {
	h := &handle{fd: fd}
	h.refs.Store(1)
	return h
}

// descriptor returns the descriptor, which stays open for as long as the caller
// has a reference.
func (h *handle) descriptor() int { return h.fd }

// retain adds a reference, for another holder, and returns h.
func (h *handle) retain() *handle {
	h.refs.Add(1)
	return h
}

// release gives up one reference. A nil handle has none, and nothing happens.
func (h *handle) release() {
	if h != nil && h.refs.Add(-1) == 0 {
		closeFD(h.fd)
	}
}
