//go:build unix

package socket

import (
	"os"
	"syscall"

	"github.com/go-cluster/cluster/internal/handle"
	"golang.org/x/sys/unix"
)

// Acceptor accepts the connections of a listening socket as bare descriptors.
type Acceptor struct {
	f    *os.File
	rc   syscall.RawConn
	lent bool
}

// NewAcceptor makes an acceptor of h, which stays the caller's. lent says that other
// processes have the socket too. They share the file description, so they can make it
// blocking. Accept sets the flag back each time. It can still wait in the kernel, if the
// flag is changed and the connection taken between that and accept(2). TryAccept is only
// for sockets that are not lent.
func NewAcceptor(h *handle.Handle, lent bool) (*Acceptor, error) {
	f, err := fileOf(h)
	if err != nil {
		return nil, err
	}
	rc, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Acceptor{f, rc, lent}, nil
}

// Accept waits for a connection. Each time that one may have come it first calls wanted,
// and returns [ErrUnwanted] if that is false.
func (a *Acceptor) Accept(wanted func() bool) (*handle.Handle, error) {
	var fd int
	var err error
	waitErr := a.rc.Read(func(s uintptr) bool {
		if !wanted() {
			err = ErrUnwanted
			return true
		}
		if a.lent {
			unix.SetNonblock(int(s), true)
		}
		fd, err = acceptNow(int(s))
		return err != unix.EAGAIN
	})
	if waitErr != nil {
		err = waitErr
	}
	if err != nil {
		return nil, err
	}
	return handle.New(fd), nil
}

// TryAccept accepts a connection if one waits.
func (a *Acceptor) TryAccept() (h *handle.Handle, ok bool) {
	a.rc.Control(func(s uintptr) {
		if fd, err := acceptNow(int(s)); err == nil {
			h, ok = handle.New(fd), true
		}
	})
	return h, ok
}

func acceptNow(s int) (fd int, err error) {
	for {
		if fd, err = acceptCloexec(s); err != unix.EINTR && err != unix.ECONNABORTED {
			return fd, err
		}
	}
}

// Close makes a waiting Accept return.
func (a *Acceptor) Close() { a.f.Close() }
