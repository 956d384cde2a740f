package cluster

import (
	"errors"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/go-cluster/cluster/internal/handle"
)

// acceptor accepts on a listening socket that other processes may accept on as
// well. A socket belongs to one completion port, whichever process put it there
// first. So AcceptEx here reports to an event, and with the low bit of the event
// set to nothing else.
type acceptor = *accepting

type accepting struct {
	h      *handle.Handle
	family int

	mu      sync.Mutex
	changed chan struct{} // closed, and replaced, by setDeadline and close
	limit   time.Time
	closed  bool
	spare   []*acceptance // not in use
	running sync.WaitGroup
}

// newAcceptor makes an acceptor of h, of which it keeps a reference.
func newAcceptor(h *handle.Handle) (acceptor, error) {
	sa, err := windows.Getsockname(h.Socket())
	if err != nil {
		return nil, os.NewSyscallError("getsockname", err)
	}
	a := &accepting{h: h.Retain(), family: windows.AF_INET6, changed: make(chan struct{})}
	if _, ok := sa.(*windows.SockaddrInet4); ok {
		a.family = windows.AF_INET
	}
	return a, nil
}

// addressRoom is what AcceptEx wants for each of the two addresses.
const addressRoom = 16 + int(unsafe.Sizeof(windows.RawSockaddrAny{}))

// acceptance is what one AcceptEx needs. The kernel writes to it until the call
// has ended, so it must not be on a stack, which moves; it is pinned as well.
type acceptance struct {
	ov    windows.Overlapped
	n     uint32
	buf   [2 * addressRoom]byte
	event windows.Handle // resets itself
	ended *handle.Watch  // the event
	pin   runtime.Pinner
}

func newAcceptance() (*acceptance, error) {
	event, err := windows.CreateEvent(nil, 0, 0, nil)
	if err != nil {
		return nil, os.NewSyscallError("CreateEvent", err)
	}
	o := &acceptance{event: event}
	if o.ended, err = handle.NewWatch(event, false); err != nil {
		windows.CloseHandle(event)
		return nil, err
	}
	o.pin.Pin(o)
	return o, nil
}

func (o *acceptance) free() {
	o.ended.Stop()
	windows.CloseHandle(o.event)
	o.pin.Unpin()
}

// accept waits for a connection, unless there is no want of one (errUnwanted).
// Once it waits, one that comes is accepted in any case. The error is
// net.ErrClosed after close, os.ErrDeadlineExceeded past the deadline.
func (a *accepting) accept(wanted func() bool) (fd int, err error) {
	if !wanted() {
		return -1, errUnwanted
	}
	o, err := a.begin()
	if err != nil {
		return -1, err
	}
	defer a.end(o)
	for {
		s, err := newSocket(a.family)
		if err != nil {
			return -1, err
		}
		err = a.acceptEx(o, s)
		if err == nil {
			return int(s), nil
		}
		windows.Closesocket(s)
		switch {
		case clientGone(err):
			continue
		case err == windows.ERROR_OPERATION_ABORTED:
			continue // not by us: the system does that when the thread ends that began it
		}
		if errno, ok := err.(syscall.Errno); ok {
			err = os.NewSyscallError("AcceptEx", portableErrno(errno))
		}
		return -1, err
	}
}

// clientGone reports whether err only says that the client has gone before it was
// accepted, or just after. An error of Accept would end most servers.
func clientGone(err error) bool {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case windows.WSAECONNRESET, windows.WSAECONNABORTED, windows.WSAENOTCONN, windows.ERROR_NETNAME_DELETED:
		return true
	}
	return false
}

// tryAccept: nothing accepts a connection only if one waits.
func (a *accepting) tryAccept() (fd int, ok bool) { return -1, false }

// begin returns what an accept needs. close waits for its end.
func (a *accepting) begin() (*acceptance, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.over(); err != nil {
		return nil, err
	}
	if n := len(a.spare); n > 0 {
		a.running.Add(1)
		o := a.spare[n-1]
		a.spare = a.spare[:n-1]
		return o, nil
	}
	o, err := newAcceptance()
	if err == nil {
		a.running.Add(1)
	}
	return o, err
}

func (a *accepting) end(o *acceptance) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		o.free()
	} else {
		a.spare = append(a.spare, o)
	}
	a.running.Done()
}

// over says why nothing is accepted now. a.mu is held.
func (a *accepting) over() error {
	switch {
	case a.closed:
		return net.ErrClosed
	case !a.limit.IsZero() && !time.Now().Before(a.limit):
		return os.ErrDeadlineExceeded
	}
	return nil
}

// acceptEx is one AcceptEx, which makes s the connection.
func (a *accepting) acceptEx(o *acceptance, s windows.Handle) error {
	o.ov = windows.Overlapped{HEvent: o.event | 1}
	l := a.h.Socket()
	err := windows.AcceptEx(l, s, &o.buf[0], 0, uint32(addressRoom), uint32(addressRoom), &o.n, &o.ov)
	if err != nil && err != windows.ERROR_IO_PENDING {
		return err
	}
	if why := a.wait(o, l); why != nil {
		// Closing the socket would not end the call: others hold it too. A
		// connection that comes just now is accepted all the same.
		cancelAccept(l, &o.ov)
		for !o.done(l) { // the system takes its time
			<-o.ended.Signal
		}
		if err = o.result(l); err == windows.ERROR_OPERATION_ABORTED {
			return why
		}
	} else {
		err = o.result(l)
	}
	if err != nil {
		return err
	}
	// Without it, getpeername and shutdown do not know the connection.
	return windows.Setsockopt(s, windows.SOL_SOCKET, windows.SO_UPDATE_ACCEPT_CONTEXT, (*byte)(unsafe.Pointer(&l)), int32(unsafe.Sizeof(l)))
}

// cancelAccept is a variable for the tests: Wine's has ended the call when it
// returns, and Windows' not.
var cancelAccept = windows.CancelIoEx

// wait returns nil when the call under way has ended, or why it has to.
func (a *accepting) wait(o *acceptance, l windows.Handle) error {
	for {
		if o.done(l) { // the signal may be that of an earlier call
			return nil
		}
		a.mu.Lock()
		why, limit, changed := a.over(), a.limit, a.changed
		a.mu.Unlock()
		if why != nil {
			return why
		}
		var expired <-chan time.Time
		if !limit.IsZero() {
			timer := time.NewTimer(time.Until(limit))
			expired = timer.C
			defer timer.Stop()
		}
		select {
		case <-o.ended.Signal:
		case <-changed:
		case <-expired:
		}
	}
}

// done reports whether the call under way has ended.
func (o *acceptance) done(l windows.Handle) bool {
	return o.result(l) != windows.ERROR_IO_INCOMPLETE
}

func (o *acceptance) result(l windows.Handle) error {
	var flags uint32
	return windows.WSAGetOverlappedResult(l, &o.ov, &o.n, false, &flags)
}

func (a *accepting) setDeadline(t time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return net.ErrClosed
	}
	a.limit = t
	a.wake()
	return nil
}

// wake lets every accept under way look again. a.mu is held.
func (a *accepting) wake() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// close makes waiting accepts return, and waits until they have: one that is
// still under way would take a connection from the processes that go on. It
// reports whether it is the first.
func (a *accepting) close() (first bool) {
	a.mu.Lock()
	first = !a.closed
	if first {
		a.closed = true
		a.wake()
		for _, o := range a.spare {
			o.free()
		}
		a.spare = nil
	}
	a.mu.Unlock()
	a.running.Wait()
	if first {
		a.h.Release()
	}
	return first
}

// socketListener is a net.Listener on a shared socket.
type socketListener struct {
	acceptor
	addr net.Addr
}

var (
	_ net.Listener = (*socketListener)(nil)
	_ syscall.Conn = (*socketListener)(nil)
)

// newSocketListener makes a listener of h, of which it keeps a reference.
func newSocketListener(h *handle.Handle) (net.Listener, error) {
	sa, err := windows.Getsockname(h.Socket())
	if err != nil {
		return nil, os.NewSyscallError("getsockname", err)
	}
	a, err := newAcceptor(h)
	if err != nil {
		return nil, err
	}
	return &socketListener{a, tcpAddrOf(sa)}, nil
}

func (l *socketListener) Addr() net.Addr { return l.addr }

func (l *socketListener) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Addr: l.addr, Err: err}
}

func always() bool { return true }

func (l *socketListener) Accept() (net.Conn, error) {
	for {
		fd, err := l.accept(always)
		if err != nil {
			return nil, l.opError("accept", err)
		}
		h := handle.New(fd)
		c, err := newSocketConn(h)
		h.Release()
		switch {
		case err == nil:
			return c, nil
		case !clientGone(err):
			return nil, l.opError("accept", err)
		}
	}
}

func (l *socketListener) Close() error {
	if !l.close() {
		return l.opError("close", net.ErrClosed)
	}
	return nil
}

// SetDeadline bounds Accept.
func (l *socketListener) SetDeadline(t time.Time) error {
	if err := l.setDeadline(t); err != nil {
		return l.opError("set", err)
	}
	return nil
}

// SyscallConn gives access to this process's handle of the socket.
func (l *socketListener) SyscallConn() (syscall.RawConn, error) { return rawListener{l}, nil }

// rawListener is what SyscallConn returns.
type rawListener struct{ l *socketListener }

func (r rawListener) Control(f func(fd uintptr)) error {
	r.l.mu.Lock()
	if r.l.closed {
		r.l.mu.Unlock()
		return r.l.opError("raw-control", net.ErrClosed)
	}
	h := r.l.h.Retain()
	r.l.mu.Unlock()
	defer h.Release()
	f(uintptr(h.FD()))
	return nil
}

// Read and Write: as for the listeners of package net, there is nothing to wait for.
func (r rawListener) Read(func(fd uintptr) bool) error {
	return r.l.opError("raw-read", syscall.EINVAL)
}

func (r rawListener) Write(func(fd uintptr) bool) error {
	return r.l.opError("raw-write", syscall.EINVAL)
}
