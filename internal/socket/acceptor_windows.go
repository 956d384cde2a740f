package socket

import (
	"errors"
	"os"
	"syscall"
	"unsafe"

	"github.com/go-cluster/cluster/internal/handle"
	"golang.org/x/sys/windows"
)

// Acceptor accepts the connections of a listening socket as bare descriptors.
// Other processes may accept on the socket as well.
type Acceptor struct {
	*calls
	family int
	peers  *addresses
}

// addresses are where AcceptEx puts the two addresses of a connection. Nobody reads
// them, and all calls of an Acceptor have the same. The kernel has a pointer to them
// while a call is under way, as the Acceptor has.
type addresses [2 * addressRoom]byte

// addressRoom is what AcceptEx wants for each of the two.
const addressRoom = 16 + int(unsafe.Sizeof(windows.RawSockaddrAny{}))

// NewAcceptor makes an acceptor of h, of which it keeps a reference. Who else has
// the socket cannot make it wait here.
func NewAcceptor(h *handle.Handle, lent bool) (*Acceptor, error) {
	sa, err := windows.Getsockname(h.Socket())
	if err != nil {
		return nil, os.NewSyscallError("getsockname", err)
	}
	a := &Acceptor{calls: newCalls(h), family: windows.AF_INET6, peers: new(addresses)}
	if _, ok := sa.(*windows.SockaddrInet4); ok {
		a.family = windows.AF_INET
	}
	return a, nil
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

// acceptEx is one AcceptEx, which makes s the connection. One that came just before
// Close is accepted all the same.
func (a *Acceptor) acceptEx(o *overlapped, s windows.Handle) error {
	err := a.do(o, func(l windows.Handle, o *overlapped) error { return a.start(l, o, s) })
	if err != nil {
		return err
	}
	// Without it, getpeername and shutdown do not know the connection.
	l := a.h.Socket()
	return windows.Setsockopt(s, windows.SOL_SOCKET, windows.SO_UPDATE_ACCEPT_CONTEXT, (*byte)(unsafe.Pointer(&l)), int32(unsafe.Sizeof(l)))
}

// start begins the call that is to make s a connection of the listening socket l.
func (a *Acceptor) start(l windows.Handle, o *overlapped, s windows.Handle) error {
	return windows.AcceptEx(l, s, &a.peers[0], 0, uint32(addressRoom), uint32(addressRoom), &o.n, &o.ov)
}

// Close makes every waiting Accept return, and returns when they have: one that
// is still under way would take a connection from the processes that go on.
func (a *Acceptor) Close() { a.close() }
