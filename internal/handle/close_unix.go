//go:build unix

package handle

import "golang.org/x/sys/unix"

func closeFD(fd int) { unix.Close(fd) }

// mayWait reports whether close(2) of fd may wait. A socket that listens does not linger. A
// stream of a unix socket may wait although it does not linger: close also closes the
// descriptors in its input that nobody has read yet.
func mayWait(fd int) bool {
	if listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && listens != 0 {
		return false
	}
	if mayLinger(fd) {
		return true // not a socket, or one that lingers
	}
	sa, err := unix.Getsockname(fd)
	if _, local := sa.(*unix.SockaddrUnix); err != nil || !local {
		return false
	}
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	return err != nil || typ != unix.SOCK_DGRAM
}

// mayLinger is mayWait for a TCP connection.
func mayLinger(fd int) bool {
	lingers, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LINGER) // l_onoff of struct linger
	return err != nil || lingers != 0
}
