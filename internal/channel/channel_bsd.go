//go:build unix && !linux

package channel

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// No MSG_NOSIGNAL: the Go runtime drops a SIGPIPE of descriptors above 2.
const sendFlags = unix.MSG_DONTWAIT

// fionread asks for the bytes that wait to be read: _IOR('f', 127, int), the
// same on macOS and every BSD.
const fionread = 0x4004667f

// socketpair sets close-on-exec under the lock that forks take, since not every
// system has SOCK_CLOEXEC.
func socketpair() (fds [2]int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fds, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	return fds, err
}

// recvmsgCloexec marks received descriptors close-on-exec before any fork can
// inherit them; macOS has no MSG_CMSG_CLOEXEC. The call does not block.
func recvmsgCloexec(fd int, p, oob []byte) (n, oobn int, fds []int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	n, oobn, _, _, err = unix.Recvmsg(fd, p, oob, unix.MSG_DONTWAIT)
	if err != nil {
		return 0, 0, nil, err
	}
	fds = ParseRights(oob[:oobn])
	for _, f := range fds {
		unix.CloseOnExec(f)
	}
	return n, oobn, fds, nil
}
