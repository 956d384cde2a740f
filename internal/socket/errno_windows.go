package socket

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/windows"
)

// Again is the error number of what may be tried again later.
const Again = windows.WSAEWOULDBLOCK

// posix are the numbers that package syscall has invented for the names of
// Unix, which the system never returns, with what it returns instead.
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

// winsockError is an error number that is found by both its names:
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

// ErrnoOf reads the error number of the wire: the system's own, negative.
func ErrnoOf(n int) error {
	if n < 0 {
		n = -n
	}
	return PortableErrno(syscall.Errno(n))
}

// PortableErrno is errno for a program that is written for all systems.
func PortableErrno(errno syscall.Errno) error { return winsockError{winsockErrno(errno)} }

// fileErrno are the errors of ReadFile and WriteFile on a socket, as the calls
// of Winsock would have them.
var fileErrno = map[syscall.Errno]syscall.Errno{
	windows.ERROR_NETNAME_DELETED:     windows.WSAECONNRESET,
	windows.ERROR_CONNECTION_ABORTED:  windows.WSAECONNABORTED,
	windows.ERROR_GRACEFUL_DISCONNECT: windows.WSAECONNRESET,
	windows.ERROR_BROKEN_PIPE:         windows.WSAECONNRESET,
	windows.ERROR_NO_DATA:             windows.WSAESHUTDOWN,
	windows.ERROR_PIPE_NOT_CONNECTED:  windows.WSAESHUTDOWN,
	windows.ERROR_SEM_TIMEOUT:         windows.WSAETIMEDOUT,
}

// socketError is the cause of err, which a file that is a socket has returned.
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

// Exhausted reports whether err says that this process or the system has no room for
// one more socket, and not that something is wrong with the one in question.
func Exhausted(err error) bool {
	return errors.Is(err, windows.WSAEMFILE) || errors.Is(err, windows.WSAENOBUFS)
}
