package socket

import (
	"errors"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/go-cluster/cluster/internal/handle"
	"golang.org/x/sys/windows"
)

// Acceptor accepts the connections of a listening socket as bare descriptors.
// Other processes may accept on the socket as well. A socket belongs to one
// completion port, that of the process that was the first to put it on one. So
// AcceptEx here reports to an event, and with the low bit of the event set to
// nothing else.
type Acceptor struct {
	h      *handle.Handle
	family int

	mu      sync.Mutex
	changed chan struct{} // closed, and replaced, by setDeadline and Close
	limit   time.Time
	closed  bool
	spare   []*acceptance // not in use
	running sync.WaitGroup
}

// NewAcceptor makes an acceptor of h, of which it keeps a reference. Who else has
// the socket cannot make it wait here.
func NewAcceptor(h *handle.Handle, lent bool) (*Acceptor, error) {
	sa, err := windows.Getsockname(h.Socket())
	if err != nil {
		return nil, os.NewSyscallError("getsockname", err)
	}
	a := &Acceptor{h: h.Retain(), family: windows.AF_INET6, changed: make(chan struct{})}
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

// Accept waits for a connection, unless wanted says that there is no want of one
// (ErrUnwanted). Once it waits, a connection that comes is accepted in any case.
// The error is net.ErrClosed after Close, os.ErrDeadlineExceeded past the
// deadline.
func (a *Acceptor) Accept(wanted func() bool) (*handle.Handle, error) {
	if !wanted() {
		return nil, ErrUnwanted
	}
	o, err := a.begin()
	if err != nil {
		return nil, err
	}
	defer a.end(o)
	for {
		s, err := newSocket(a.family)
		if err != nil {
			return nil, err
		}
		err = a.acceptEx(o, s)
		if err == nil {
			return handle.New(int(s)), nil
		}
		windows.Closesocket(s)
		switch {
		case clientGone(err):
			continue
		case err == windows.ERROR_OPERATION_ABORTED:
			continue // not by us: the system does that when the thread ends that began it
		}
		if errno, ok := err.(syscall.Errno); ok {
			err = os.NewSyscallError("AcceptEx", PortableErrno(errno))
		}
		return nil, err
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

// TryAccept accepts a connection if one waits. Nothing here tells whether one
// does.
func (a *Acceptor) TryAccept() (h *handle.Handle, ok bool) { return nil, false }

// begin returns what an accept needs. Close waits for its end.
func (a *Acceptor) begin() (*acceptance, error) {
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

func (a *Acceptor) end(o *acceptance) {
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
func (a *Acceptor) over() error {
	switch {
	case a.closed:
		return net.ErrClosed
	case !a.limit.IsZero() && !time.Now().Before(a.limit):
		return os.ErrDeadlineExceeded
	}
	return nil
}

// acceptEx is one AcceptEx, which makes s the connection.
func (a *Acceptor) acceptEx(o *acceptance, s windows.Handle) error {
	l := a.h.Socket()
	if err := o.start(l, s); err != nil {
		return err
	}
	var err error
	if why := a.wait(o, l); why != nil {
		err = o.abort(l, why, windows.CancelIoEx)
	} else {
		err = o.result(l)
	}
	if err != nil {
		return err
	}
	// Without it, getpeername and shutdown do not know the connection.
	return windows.Setsockopt(s, windows.SOL_SOCKET, windows.SO_UPDATE_ACCEPT_CONTEXT, (*byte)(unsafe.Pointer(&l)), int32(unsafe.Sizeof(l)))
}

// start begins the call that is to make s a connection of the listening socket l.
func (o *acceptance) start(l, s windows.Handle) error {
	o.ov = windows.Overlapped{HEvent: o.event | 1}
	err := windows.AcceptEx(l, s, &o.buf[0], 0, uint32(addressRoom), uint32(addressRoom), &o.n, &o.ov)
	if err == windows.ERROR_IO_PENDING {
		return nil
	}
	return err
}

// abort ends the call under way by cancel and returns why, or nil if a connection
// came just before: that one is accepted all the same. Closing the socket would
// not end the call, since other processes hold it too.
func (o *acceptance) abort(l windows.Handle, why error, cancel func(windows.Handle, *windows.Overlapped) error) error {
	cancel(l, &o.ov)
	for !o.done(l) { // a call that is cancelled has not ended for that
		<-o.ended.Signal
	}
	err := o.result(l)
	if err == windows.ERROR_OPERATION_ABORTED {
		return why
	}
	return err
}

// wait returns nil when the call under way has ended, or why it has to.
func (a *Acceptor) wait(o *acceptance, l windows.Handle) error {
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

func (a *Acceptor) setDeadline(t time.Time) error {
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
func (a *Acceptor) wake() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// Close makes every waiting Accept return, and returns when they have: one that
// is still under way would take a connection from the processes that go on.
func (a *Acceptor) Close() { a.close() }

// close is Close. It reports whether it was the first.
func (a *Acceptor) close() (first bool) {
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
