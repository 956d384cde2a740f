//go:build unix

package cluster

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// handle is a descriptor that several parts of the package hold: the registry
// or the round-robin queue on one side, a channel that is to pass it on the
// other. The last one to release it closes it; nobody closes fd itself.
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

// retain adds a reference, for another holder.
func (h *handle) retain() *handle {
	h.refs.Add(1)
	return h
}

// release gives up one reference. A nil handle is none.
func (h *handle) release() {
	if h != nil && h.refs.Add(-1) == 0 {
		unix.Close(h.fd)
	}
}

// attach returns what carries h to the peer: the line as it is, and the
// descriptor beside it.
func (l *link) attach(line []byte, h *handle) ([]byte, *handle) { return line, h.retain() }

// claim returns the oldest descriptor, or nil, for a line that should have come
// with one.
func (l *link) claim([]byte) *handle {
	if len(l.fds) == 0 {
		return nil
	}
	fd := l.fds[0]
	l.fds = l.fds[1:]
	if l.held > 0 {
		l.held--
	}
	return newHandle(fd)
}
