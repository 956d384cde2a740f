package socket

import "golang.org/x/sys/unix"

// acceptCloexec accepts a connection, non-blocking and close-on-exec. It makes the system
// call itself, since unix.Accept4 makes another one for the connection's protocol.
func acceptCloexec(fd int) (int, error) {
	conn, _, errno := unix.Syscall6(unix.SYS_ACCEPT4, uintptr(fd), 0, 0, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(conn), nil
}
