//go:build unix

package roomtest

import "golang.org/x/sys/unix"

// IsSocket asks the system whether fd is an open socket.
func IsSocket(fd uintptr) bool {
	_, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TYPE)
	return err == nil
}
