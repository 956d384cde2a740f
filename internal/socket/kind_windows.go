package socket

import (
	"fmt"
	"unsafe"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/handle"
	"golang.org/x/sys/windows"
)

// KindOf returns the kind of h, and its network.
func KindOf(h *handle.Handle) (k Kind, network string) {
	typ, err := intOption(h.Socket(), soType)
	switch {
	case err != nil:
		return File, ""
	case typ == windows.SOCK_DGRAM:
		return Packet, "udp"
	case typ != windows.SOCK_STREAM:
		return File, ""
	}
	network = "tcp"
	if sa, err := windows.Getsockname(h.Socket()); err == nil {
		if _, local := sa.(*windows.SockaddrUnix); local {
			network = "unix"
		}
	}
	if n, err := intOption(h.Socket(), soAcceptConn); err == nil && n != 0 {
		return Listener, network
	}
	return Stream, network
}

// The options SO_TYPE and SO_ACCEPTCONN.
const (
	soType       = 0x1008
	soAcceptConn = 2
)

func intOption(s windows.Handle, name int32) (value int32, err error) {
	size := int32(unsafe.Sizeof(value))
	err = windows.Getsockopt(s, windows.SOL_SOCKET, name, (*byte)(unsafe.Pointer(&value)), &size)
	return value, err
}

// Sendable returns an error if a descriptor of the kind and network cannot go to another
// process.
func Sendable(k Kind, network string) error {
	what := k.String()
	switch {
	case k != Stream && k != Listener:
	case network == "unix":
		what += " of a unix socket"
	default:
		return nil
	}
	return fmt.Errorf("%s on Windows: %w; send a TCP connection or listener", what, errs.NotSupported)
}
