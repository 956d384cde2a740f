package handle

import (
	"encoding/base64"
	"errors"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Socket returns the descriptor as a SOCKET. A Handle must not put it on a completion port:
// a socket can be put on one only once, whichever of its processes does so.
func (h *Handle) Socket() windows.Handle { return windows.Handle(h.fd) }

func closeFD(fd int) { windows.Closesocket(windows.Handle(fd)) }

// mayWait reports whether closing the socket may wait: whether it lingers.
func mayWait(fd int) bool { return mayLinger(fd) }

func mayLinger(fd int) bool {
	lingers, err := windows.GetsockoptInt(windows.Handle(fd), windows.SOL_SOCKET, windows.SO_LINGER)
	return err != nil || lingers != 0
}

// Duplicate opens s in the process pid as well, and returns the text by which Adopt finds
// it there. The socket is open in that process from then on.
func Duplicate(s windows.Handle, pid int) (string, error) {
	var info windows.WSAProtocolInfo
	if err := windows.WSADuplicateSocket(s, uint32(pid), &info); err != nil {
		return "", os.NewSyscallError("WSADuplicateSocket", err)
	}
	return base64.StdEncoding.EncodeToString(unsafe.Slice((*byte)(unsafe.Pointer(&info)), unsafe.Sizeof(info))), nil
}

// TextLen is the length of the text of Duplicate, in bytes.
const TextLen = (int(unsafe.Sizeof(windows.WSAProtocolInfo{})) + 2) / 3 * 4

// Adopt returns the socket that Duplicate has opened in this process.
func Adopt(text string) (*Handle, error) {
	var info windows.WSAProtocolInfo
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, err
	}
	if len(b) != int(unsafe.Sizeof(info)) {
		return nil, errors.New("the length is not that of a WSAPROTOCOL_INFO")
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&info)), len(b)), b)
	s, err := windows.WSASocket(-1, -1, -1, &info, 0, windows.WSA_FLAG_OVERLAPPED|windows.WSA_FLAG_NO_HANDLE_INHERIT)
	if err != nil {
		return nil, os.NewSyscallError("WSASocket", err)
	}
	return New(int(s)), nil
}

// Fetch opens in this process the socket that the process pid has under the number. It
// closes nothing in the other process. If something else than a socket is there, Fetch
// returns an error.
func Fetch(number string, pid int) (*Handle, error) {
	n, err := strconv.ParseUint(number, 10, 31)
	if err != nil {
		return nil, err
	}
	p, err := windows.OpenProcess(windows.PROCESS_DUP_HANDLE, false, uint32(pid))
	if err != nil {
		return nil, os.NewSyscallError("OpenProcess", err)
	}
	defer windows.CloseHandle(p)
	var s windows.Handle
	if err := windows.DuplicateHandle(p, windows.Handle(n), windows.CurrentProcess(), &s, 0, false, windows.DUPLICATE_SAME_ACCESS); err != nil {
		return nil, os.NewSyscallError("DuplicateHandle", err)
	}
	// Winsock learns of the socket only if it opens it. It refuses what is not a socket.
	defer windows.CloseHandle(s)
	text, err := Duplicate(s, os.Getpid())
	if err != nil {
		return nil, err
	}
	return Adopt(text)
}
