//go:build unix

package socket

import "syscall"

// Again is the error number of what may be tried again later.
const Again = syscall.EAGAIN

// ErrnoOf reads the error number of the wire: the peer's system's own, which node
// makes negative.
func ErrnoOf(n int) error {
	if n < 0 {
		n = -n
	}
	return syscall.Errno(n)
}

// PortableErrno returns errno for a program that is written for all systems.
func PortableErrno(errno syscall.Errno) error { return errno }
