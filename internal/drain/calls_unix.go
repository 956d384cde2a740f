//go:build unix

package drain

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// blocking reports whether a call on the socket may wait in the kernel now.
func blocking(rc syscall.RawConn) (is bool) {
	rc.Control(func(fd uintptr) {
		flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
		is = err == nil && flags&unix.O_NONBLOCK == 0
	})
	return is
}

// unblock makes the socket non-blocking, and interrupts calls that began before that.
// The kernel restarts them, and they then find that they must not wait. SIGURG is the
// signal that the runtime itself sends to its threads, whenever it likes.
func unblock(rc syscall.RawConn) {
	rc.Control(func(fd uintptr) { unix.SetNonblock(int(fd), true) })
	interruptThreads(unix.SIGURG)
}
