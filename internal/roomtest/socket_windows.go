package roomtest

import "golang.org/x/sys/windows"

// IsSocket asks the system whether fd is an open socket.
func IsSocket(fd uintptr) bool {
	_, err := windows.GetsockoptInt(windows.Handle(fd), windows.SOL_SOCKET, 0x1008 /* SO_TYPE */)
	return err == nil
}
