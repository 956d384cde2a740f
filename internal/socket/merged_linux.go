package socket

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/handle"
	"golang.org/x/sys/unix"
)

// Merged accepts from several sockets as if they were one listener. Sockets come and go
// while it accepts.
//
// It waits by an epoll instance of its own, which the runtime's poller watches. It accepts
// with a net.TCPListener of the socket that has a connection. To accept bare descriptors and
// make connections of them (net.FileConn) would cost a duplicate and five more system calls
// for each.
type Merged struct {
	readiness

	mu     sync.Mutex
	closed bool
	all    map[int]*member // by index
}

// member is one of the sockets.
type member struct {
	mu sync.Mutex // held while one goroutine accepts
	ln *net.TCPListener
}

// NewMerged makes a listener without sockets.
func NewMerged() (*Merged, error) {
	r, err := newReadiness()
	if err != nil {
		return nil, err
	}
	return &Merged{readiness: r, all: make(map[int]*member)}, nil
}

// Add makes m accept from h as well. It takes a descriptor of its own. index is for Remove. If
// another socket has the index, Add removes that one.
func (m *Merged) Add(index int, h *handle.Handle) error {
	ln, err := NewListener(h)
	if err != nil {
		return err
	}
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		ln.Close()
		return &net.OpError{Op: "listen", Net: ln.Addr().Network(), Addr: ln.Addr(), Err: errs.NotSupported}
	}
	m.Remove(index)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		tcp.Close()
		return net.ErrClosed
	}
	if err := m.control(unix.EPOLL_CTL_ADD, index, tcp); err != nil {
		tcp.Close()
		return err
	}
	m.all[index] = &member{ln: tcp}
	return nil
}

// Remove makes m accept from the socket no more.
func (m *Merged) Remove(index int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.all[index]; s != nil {
		delete(m.all, index)
		m.control(unix.EPOLL_CTL_DEL, index, s.ln) // closing it does not, since other processes have the socket
		s.ln.Close()
	}
}

func (m *Merged) control(op, index int, ln *net.TCPListener) error {
	rc, err := ln.SyscallConn()
	if err != nil {
		return err
	}
	// Level-triggered: a connection that one look leaves is seen by the next one.
	e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(index)}
	outerErr := m.rc.Control(func(epoll uintptr) {
		innerErr := rc.Control(func(fd uintptr) { err = unix.EpollCtl(int(epoll), op, int(fd), &e) })
		if err == nil {
			err = innerErr
		}
	})
	if outerErr != nil {
		return outerErr
	}
	return os.NewSyscallError("epoll_ctl", err)
}

// overtaken bounds the Accept of a socket that had a connection a moment ago: another
// process may have taken that since.
const overtaken = time.Millisecond

// Accept waits for a connection at any of the sockets.
func (m *Merged) Accept() (net.Conn, error) {
	for {
		index, err := m.ready()
		if err != nil {
			return nil, err
		}
		m.mu.Lock()
		s := m.all[index]
		m.mu.Unlock()
		if s == nil {
			continue // it has just gone
		}
		c, err := s.accept()
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed) {
			return nil, err
		}
	}
}

func (s *member) accept() (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ln.SetDeadline(time.Now().Add(overtaken))
	defer s.ln.SetDeadline(time.Time{}) // else its timer would wake this process
	return s.ln.Accept()
}

// readiness is an epoll instance of sockets. The runtime's poller watches it.
type readiness struct {
	epoll *os.File
	rc    syscall.RawConn
}

func newReadiness() (r readiness, err error) {
	r.epoll, r.rc, err = newEpollFile()
	return r, err
}

// ready waits for a socket that has something, and returns its index. It asks for one at a
// time, and the kernel goes round among them.
func (r readiness) ready() (index int, err error) {
	var events [1]unix.EpollEvent
	waitErr := r.rc.Read(func(fd uintptr) bool {
		n, errno := pollNow(int(fd), events[:])
		index, err = int(events[0].Fd), nil
		if errno != 0 && errno != unix.EINTR {
			err = errno
		}
		return n > 0 || err != nil
	})
	switch {
	case waitErr == nil:
		return index, os.NewSyscallError("epoll_wait", err)
	case errors.Is(waitErr, os.ErrDeadlineExceeded):
		return 0, waitErr
	}
	return 0, net.ErrClosed
}

// SetDeadline bounds Accept.
func (m *Merged) SetDeadline(t time.Time) error { return m.epoll.SetReadDeadline(t) }

// Close closes this process's descriptors of all sockets, and ends a waiting Accept.
func (m *Merged) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return net.ErrClosed
	}
	m.closed = true
	for _, s := range m.all {
		s.ln.Close()
	}
	clear(m.all)
	return m.epoll.Close()
}

// Len returns the number of sockets.
func (m *Merged) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.all)
}

// SyscallConn gives access to one of the sockets.
func (m *Merged) SyscallConn() (syscall.RawConn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.all {
		return s.ln.SyscallConn()
	}
	return nil, errs.NotSupported
}
