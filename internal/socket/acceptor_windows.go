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

// addresses is the memory into which AcceptEx puts the two addresses of a connection.
// Nobody reads it, so all calls of an Acceptor share one. The kernel writes to it while a
// call is under way, and the Acceptor keeps it alive.
type addresses [2 * addressRoom]byte

// addressRoom is the room that AcceptEx needs for each of the two, in bytes.
const addressRoom = 16 + int(unsafe.Sizeof(windows.RawSockaddrAny{}))

// NewAcceptor makes an acceptor of h, and keeps a reference of its own. lent is ignored:
// no other process can make Accept wait in the kernel here.
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

// Accept waits for a connection. It calls wanted once, before it waits, and returns
// ErrUnwanted if that is false. The error is net.ErrClosed after Close, and
// os.ErrDeadlineExceeded past the deadline.
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
			continue // the thread that began the call has ended, and the system has ended the call
		}
		if errno, ok := err.(syscall.Errno); ok {
			err = os.NewSyscallError("AcceptEx", PortableErrno(errno))
		}
		return nil, err
	}
}

// clientGone reports whether err only says that the client was gone before its connection
// was accepted, or just after. Accept tries again then, since an error would end most
// servers.
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

// TryAccept is false: nothing tells here whether a connection waits.
func (a *Acceptor) TryAccept() (h *handle.Handle, ok bool) { return nil, false }

// acceptEx makes one call of AcceptEx, which turns s into the connection. A connection that
// came just before Close is accepted.
func (a *Acceptor) acceptEx(o *overlapped, s windows.Handle) error {
	err := a.do(o, func(l windows.Handle, o *overlapped) error { return a.start(l, o, s) })
	if err != nil {
		return err
	}
	// Without this option, getpeername and shutdown do not know the connection.
	l := a.h.Socket()
	return windows.Setsockopt(s, windows.SOL_SOCKET, windows.SO_UPDATE_ACCEPT_CONTEXT, (*byte)(unsafe.Pointer(&l)), int32(unsafe.Sizeof(l)))
}

// start begins the call that is to make s a connection of the listening socket l.
func (a *Acceptor) start(l windows.Handle, o *overlapped, s windows.Handle) error {
	return windows.AcceptEx(l, s, &a.peers[0], 0, uint32(addressRoom), uint32(addressRoom), &o.n, &o.ov)
}

// Close makes every waiting Accept return, and waits for that: a call that is still under
// way would take a connection from the processes that go on.
func (a *Acceptor) Close() { a.close() }
