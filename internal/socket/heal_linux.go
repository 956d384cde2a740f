package socket

import (
	"net"
	"os"
	"unsafe"

	"github.com/go-cluster/cluster/internal/handle"
	"golang.org/x/sys/unix"
)

// Heals says whether a shared socket that one process has broken can be mended.
const Heals = true

// ShutDown reports whether a process that shares the listening socket h has shut it down,
// so that it takes no connection any more. Of a unix socket SO_ACCEPTCONN does not tell.
func ShutDown(h *handle.Handle) bool {
	typ, err := unix.GetsockoptInt(h.FD(), unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || typ != unix.SOCK_STREAM {
		return false
	}
	listens, err := unix.GetsockoptInt(h.FD(), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err == nil && listens == 0 {
		return true
	}
	p := []unix.PollFd{{Fd: int32(h.FD()), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP) != 0
}

// Relisten lets a TCP socket of a that was shut down listen again at real, for all
// processes that share it. It reports false of a unix socket, which never does.
func Relisten(h *handle.Handle, a Address, real net.Addr) (ok bool, err error) {
	tcp, ok := real.(*net.TCPAddr)
	if !ok {
		return false, nil
	}
	if err := rebind(h, tcp.IP, tcp.Port); err != nil {
		return true, err
	}
	backlog := a.Backlog
	if backlog == 0 {
		backlog = maxBacklog()
	}
	return true, os.NewSyscallError("listen", unix.Listen(h.FD(), backlog))
}

// rebind binds h again to what it was bound to. A port that the system chose is given up
// by a socket that is shut down or disconnected, though getsockname may show it still. One
// that was asked for is not: then the socket is bound (EINVAL).
func rebind(h *handle.Handle, ip net.IP, port int) error {
	sa, err := unix.Getsockname(h.FD())
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		sa.Port = port
		copy(sa.Addr[:], ip.To4())
	case *unix.SockaddrInet6:
		sa.Port = port
		copy(sa.Addr[:], ip.To16())
	}
	if err := unix.Bind(h.FD(), sa); err != nil && err != unix.EINVAL {
		return os.NewSyscallError("bind", err)
	}
	return nil
}

// Connected reports whether a process that shares the datagram socket h has connected it,
// so that nobody but that one peer is heard any more.
func Connected(h *handle.Handle) bool {
	typ, err := unix.GetsockoptInt(h.FD(), unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || typ != unix.SOCK_DGRAM {
		return false
	}
	_, err = unix.Getpeername(h.FD())
	return err == nil
}

// Unconnect undoes that, for a socket whose address is real.
func Unconnect(h *handle.Handle, real net.Addr) error {
	sa := unix.RawSockaddrAny{} // AF_UNSPEC
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(h.FD()), uintptr(unsafe.Pointer(&sa)), unix.SizeofSockaddrInet4)
	if errno != 0 {
		return os.NewSyscallError("connect", errno)
	}
	if udp, ok := real.(*net.UDPAddr); ok {
		return rebind(h, udp.IP, udp.Port)
	}
	return nil
}
