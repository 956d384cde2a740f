//go:build unix

package socket

import (
	"errors"
	"syscall"
)

// Again is the error number that says: try again later.
const Again = syscall.EAGAIN

// ErrnoOf returns the error for a number from the wire, which is the number of the peer's
// system. Node makes it negative.
func ErrnoOf(n int) error {
	if n < 0 {
		n = -n
	}
	return syscall.Errno(n)
}

// PortableErrno returns an error in which errors.Is finds errno by its names on all systems.
// Here that is errno itself.
func PortableErrno(errno syscall.Errno) error { return errno }

// Exhausted reports whether err says that this process or the system has no room for one
// more descriptor. Other errors are about the descriptor itself.
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
