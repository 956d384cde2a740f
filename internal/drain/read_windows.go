package drain

import (
	"unsafe"

	"golang.org/x/sys/windows"
)

// readNow is one read that does not wait.
func readNow(fd uintptr, p []byte) (int, error) {
	var waiting uint32
	s := windows.Handle(fd)
	var n uint32
	if err := windows.WSAIoctl(s, fionread, nil, 0, (*byte)(unsafe.Pointer(&waiting)), uint32(unsafe.Sizeof(waiting)), &n, nil, 0); err != nil {
		return 0, err
	}
	if waiting == 0 || len(p) == 0 {
		return 0, nil
	}
	// There is something, and nobody else reads: it does not wait.
	buf := windows.WSABuf{Len: uint32(len(p)), Buf: &p[0]}
	var flags uint32
	err := windows.WSARecv(s, &buf, 1, &n, &flags, nil, nil)
	return int(n), err
}

// fionread asks for the bytes that wait to be read: _IOR('f', 127, u_long).
const fionread = 0x4004667f
