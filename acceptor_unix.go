//go:build unix

package cluster

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/go-cluster/cluster/internal/handle"
)

// acceptor accepts on a listening socket, bare descriptors.
type acceptor struct {
	f  *os.File
	rc syscall.RawConn
}

func newAcceptor(h *handle.Handle) (acceptor, error) {
	f, err := fileOf(h)
	if err != nil {
		return acceptor{}, err
	}
	rc, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return acceptor{}, err
	}
	return acceptor{f, rc}, nil
}

// accept waits for a connection. Each time that there may be one it asks wanted
// first; if there is no want any more it returns errUnwanted.
func (a acceptor) accept(wanted func() bool) (fd int, err error) {
	waitErr := a.rc.Read(func(s uintptr) bool {
		if !wanted() {
			err = errUnwanted
			return true
		}
		fd, err = acceptNow(int(s))
		return err != unix.EAGAIN
	})
	if waitErr != nil {
		return -1, waitErr
	}
	return fd, err
}

// tryAccept accepts a connection if one waits.
func (a acceptor) tryAccept() (fd int, ok bool) {
	a.rc.Control(func(s uintptr) {
		var err error
		fd, err = acceptNow(int(s))
		ok = err == nil
	})
	return fd, ok
}

func acceptNow(s int) (fd int, err error) {
	for {
		if fd, err = acceptCloexec(s); err != unix.EINTR && err != unix.ECONNABORTED {
			return fd, err
		}
	}
}

// close makes a waiting accept return.
func (a acceptor) close() { a.f.Close() }
