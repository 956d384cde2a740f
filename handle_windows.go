package cluster

import (
	"encoding/base64"
	"errors"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/windows"
)

// handle is a socket that several parts of the package hold: the registry or the
// round-robin queue on one side, a listener or a connection on the other. The
// last one to release it closes it; nobody closes fd itself. It is on no
// completion port as long as it is only held: a socket, in whichever processes
// it is open, can be on one, once.
type handle struct {
	fd   int // a SOCKET
	refs atomic.Int32
}

// newHandle takes ownership of fd, with one reference for the caller.
func newHandle(fd int) *handle {
	h := &handle{fd: fd}
	h.refs.Store(1)
	return h
}

func (h *handle) socket() windows.Handle { return windows.Handle(h.fd) }

// retain adds a reference, for another holder.
func (h *handle) retain() *handle {
	h.refs.Add(1)
	return h
}

// release gives up one reference. A nil handle is none.
func (h *handle) release() {
	if h != nil && h.refs.Add(-1) == 0 {
		windows.Closesocket(h.socket())
	}
}

// A socket goes to another process as what WSADuplicateSocket says of it for
// that process, in a member of the message. It is open there from then on.

// socketMember is the member's name.
const socketMember = "socket"

// duplicate makes s a socket of the process too, and returns what that process
// needs to know.
func duplicate(s windows.Handle, pid int) (string, error) {
	var info windows.WSAProtocolInfo
	if err := windows.WSADuplicateSocket(s, uint32(pid), &info); err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(unsafe.Slice((*byte)(unsafe.Pointer(&info)), unsafe.Sizeof(info))), nil
}

// adopt opens in this process what duplicate made of a socket.
func adopt(text string) (windows.Handle, error) {
	var info windows.WSAProtocolInfo
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return windows.InvalidHandle, err
	}
	if len(b) != int(unsafe.Sizeof(info)) {
		return windows.InvalidHandle, errors.New("the length is not that of a WSAPROTOCOL_INFO")
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&info)), len(b)), b)
	return windows.WSASocket(-1, -1, -1, &info, 0, windows.WSA_FLAG_OVERLAPPED|windows.WSA_FLAG_NO_HANDLE_INHERIT)
}

// attach puts h's socket into the line that is to carry it. Nothing goes beside
// the line. Without the socket, as when the worker has just died, its answer
// would be that none came.
func (l *link) attach(line []byte, h *handle) ([]byte, *handle) {
	text, err := duplicate(h.socket(), l.p.pid)
	if err != nil {
		return line, nil
	}
	const tail = "}\n"
	line = append(line[:len(line)-len(tail):len(line)-len(tail)], `,"`+socketMember+`":"`...)
	return append(append(append(line, text...), '"'), tail...), nil
}

// claim returns the socket that came with the line, or nil. Only a worker takes
// one. What adopt is given names a handle of this very process: a worker could
// make the master close any of its own.
func (l *link) claim(line []byte) *handle {
	if l.p.inside == nil {
		return nil
	}
	for name, value := range members(line) {
		if string(name) == socketMember {
			text, err := textOf(value)
			if err != nil {
				return nil
			}
			s, err := adopt(text)
			if err != nil {
				return nil
			}
			return newHandle(int(s))
		}
	}
	return nil
}
