package socket

import "golang.org/x/sys/unix"

// acceptCloexec accepts a connection, non-blocking and close-on-exec.
func acceptCloexec(fd int) (int, error) {
	conn, _, err := unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	return conn, err
}
