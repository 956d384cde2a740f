//go:build unix

package socket

import (
	"errors"
	"syscall"
)

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

// Exhausted reports whether err says that this process or the system has no room for
// one more descriptor, and not that something is wrong with the one in question.
func Exhausted(err error) bool {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ENOSPC:
		return true
	}
	return false
}
