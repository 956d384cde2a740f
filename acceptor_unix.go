//go:build unix

package cluster

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// acceptor accepts on a listening socket, bare descriptors.
type acceptor struct {
	f  *os.File
	rc syscall.RawConn
}

func newAcceptor(h *handle) (acceptor, error) {
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

// accept waits for a connection.
func (a acceptor) accept() (fd int, err error) {
	waitErr := a.rc.Read(func(s uintptr) bool {
		for {
			fd, err = acceptCloexec(int(s))
			if err != unix.EINTR && err != unix.ECONNABORTED {
				return err != unix.EAGAIN
			}
		}
	})
	if waitErr != nil {
		return -1, waitErr
	}
	return fd, err
}

// close makes a waiting accept return.
func (a acceptor) close() { a.f.Close() }
