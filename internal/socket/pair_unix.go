//go:build unix

package socket

import (
	"net"
	"syscall"

	"github.com/go-cluster/cluster/internal/handle"
	"golang.org/x/sys/unix"
)

// Pair makes the two ends of a stream, one for this process and one to be sent to another.
// Both are non-blocking and close-on-exec.
func Pair() (ours net.Conn, theirs *handle.Handle, err error) {
	// Not every system has SOCK_CLOEXEC.
	syscall.ForkLock.RLock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, err
	}
	theirs = handle.New(fds[1])
	if ours, err = NewConn(handle.New(fds[0])); err != nil {
		theirs.Release()
		return nil, nil, err
	}
	return ours, theirs, nil
}
