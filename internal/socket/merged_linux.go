package socket

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
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
	*readiness

	mu     sync.Mutex
	closed bool
	all    map[int]*member // by index

	guard
}

// member is one of the sockets.
type member struct {
	mu    sync.Mutex // held while one goroutine accepts
	ln    *net.TCPListener
	calls atomic.Uint64 // calls of accept that have begun, and those that have ended: odd while one is under way
	seen  uint64        // calls at the last look of the guard
}

// NewMerged makes a listener without sockets.
func NewMerged() (*Merged, error) {
	r, err := newReadiness()
	if err != nil {
		return nil, err
	}
	m := &Merged{readiness: r, all: make(map[int]*member)}
	m.guard.init(m)
	return m, nil
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
	m.guard.beCareful() // who had the socket before may have it still
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
		c, err := m.accept(s)
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed) {
			return nil, err
		}
	}
}

// readiness is an epoll instance of sockets. The runtime's poller watches it.
type readiness struct {
	epoll *os.File
	rc    syscall.RawConn
	limit atomic.Pointer[time.Time] // the deadline, or nil

	mu    sync.Mutex // held while one goroutine waits
	look  func(epoll uintptr) (done bool)
	err   error // of look
	found []unix.EpollEvent
	next  int // in found
}

// maxFound is how many sockets one look finds. With more than one a busy worker makes fewer
// looks, and with few none of the sockets waits for long.
const maxFound = 8

func newReadiness() (*readiness, error) {
	f, rc, err := newEpollFile()
	if err != nil {
		return nil, err
	}
	r := &readiness{epoll: f, rc: rc}
	events := make([]unix.EpollEvent, maxFound)
	r.look = func(epoll uintptr) bool {
		n, errno := pollNow(int(epoll), events)
		r.found, r.next, r.err = events[:n], 0, nil
		if errno != 0 && errno != unix.EINTR {
			r.err = os.NewSyscallError("epoll_wait", errno)
		}
		return n > 0 || r.err != nil
	}
	return r, nil
}

// ready waits for a socket that has something, and returns its index. What the socket had a
// moment ago may be gone.
func (r *readiness) ready() (index int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == len(r.found) || r.over() {
		r.found, r.next = nil, 0
		if err := r.rc.Read(r.look); errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, err
		} else if err != nil {
			return 0, net.ErrClosed
		}
		if r.err != nil {
			return 0, r.err
		}
	}
	index = int(r.found[r.next].Fd)
	r.next++
	return index, nil
}

// over reports whether the deadline has passed.
func (r *readiness) over() bool {
	limit := r.limit.Load()
	return limit != nil && !time.Now().Before(*limit)
}

// setDeadline bounds ready.
func (r *readiness) setDeadline(t time.Time) error {
	err := r.epoll.SetReadDeadline(t)
	if t.IsZero() {
		r.limit.Store(nil)
	} else {
		r.limit.Store(&t)
	}
	return err
}

// close ends ready.
func (r *readiness) close() error {
	err := r.epoll.Close()
	r.limit.Store(new(time.Time))
	return err
}

// SetDeadline bounds Accept.
func (m *Merged) SetDeadline(t time.Time) error {
	err := m.setDeadline(t)
	if m.over() {
		m.endCalls()
	}
	return err
}

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
	m.guard.close()
	return m.readiness.close()
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
