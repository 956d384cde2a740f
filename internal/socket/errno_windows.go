package socket

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/windows"
)

// Again is the error number that says: try again later.
const Again = windows.WSAEWOULDBLOCK

// posix maps the numbers that package syscall has invented for the names of Unix to the
// numbers that the system returns instead.
var posix = map[syscall.Errno]syscall.Errno{
	syscall.EACCES:        windows.WSAEACCES,
	syscall.EADDRINUSE:    windows.WSAEADDRINUSE,
	syscall.EADDRNOTAVAIL: windows.WSAEADDRNOTAVAIL,
	syscall.EAFNOSUPPORT:  windows.WSAEAFNOSUPPORT,
	syscall.EAGAIN:        windows.WSAEWOULDBLOCK,
	syscall.ECONNABORTED:  windows.WSAECONNABORTED,
	syscall.ECONNREFUSED:  windows.WSAECONNREFUSED,
	syscall.ECONNRESET:    windows.WSAECONNRESET,
	syscall.EINVAL:        windows.WSAEINVAL,
	syscall.EMFILE:        windows.WSAEMFILE,
	syscall.ENOBUFS:       windows.WSAENOBUFS,
	syscall.ENOTCONN:      windows.WSAENOTCONN,
	syscall.EPIPE:         windows.WSAESHUTDOWN,
	syscall.ETIMEDOUT:     windows.WSAETIMEDOUT,
}

func winsockErrno(n syscall.Errno) syscall.Errno {
	if w, ok := posix[n]; ok {
		return w
	}
	return n
}

// winsockError is an error number that errors.Is finds by both its names, such as
// windows.WSAEADDRINUSE and syscall.EADDRINUSE.
type winsockError struct{ errno syscall.Errno }

func (e winsockError) Error() string { return e.errno.Error() }
func (e winsockError) Unwrap() error { return e.errno }
func (e winsockError) Timeout() bool { return e.errno == windows.WSAETIMEDOUT }

// Temporary tells a server that Accept is worth another try.
func (e winsockError) Temporary() bool {
	return e.errno.Temporary() || e.errno == windows.WSAEMFILE || e.errno == windows.WSAENOBUFS
}

func (e winsockError) Is(target error) bool {
	n, ok := target.(syscall.Errno)
	return ok && winsockErrno(n) == e.errno || e.errno == windows.WSAEACCES && target == os.ErrPermission
}

// ErrnoOf returns the error for a number from the wire, which is the system's own, negative.
func ErrnoOf(n int) error {
	if n < 0 {
		n = -n
	}
	return PortableErrno(syscall.Errno(n))
}

// PortableErrno returns an error in which errors.Is finds errno by its names on all systems.
func PortableErrno(errno syscall.Errno) error { return winsockError{winsockErrno(errno)} }

// fileErrno maps the errors of ReadFile and WriteFile on a socket to those that the calls of
// Winsock return.
var fileErrno = map[syscall.Errno]syscall.Errno{
	windows.ERROR_NETNAME_DELETED:     windows.WSAECONNRESET,
	windows.ERROR_CONNECTION_ABORTED:  windows.WSAECONNABORTED,
	windows.ERROR_GRACEFUL_DISCONNECT: windows.WSAECONNRESET,
	windows.ERROR_BROKEN_PIPE:         windows.WSAECONNRESET,
	windows.ERROR_NO_DATA:             windows.WSAESHUTDOWN,
	windows.ERROR_PIPE_NOT_CONNECTED:  windows.WSAESHUTDOWN,
	windows.ERROR_SEM_TIMEOUT:         windows.WSAETIMEDOUT,
}

// socketError returns the cause of err, an error of an os.File that is a socket.
func socketError(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		if n, ok := fileErrno[errno]; ok {
			errno = n
		}
		return PortableErrno(errno)
	}
	return err
}

// Exhausted reports whether err says that this process or the system has no room for one
// more socket. Other errors are about the socket itself.
func Exhausted(err error) bool {
	return errors.Is(err, windows.WSAEMFILE) || errors.Is(err, windows.WSAENOBUFS)
}
