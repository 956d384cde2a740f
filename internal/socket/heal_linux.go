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

// ShutDown reports whether a process that shares the listening socket h has shut it down:
// the socket takes no connections any more. SO_ACCEPTCONN tells that of a TCP socket, and
// poll(2) of a unix socket.
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

// Relisten makes the TCP socket h of a, which was shut down, listen again at real, for all
// processes that share it. It returns false for a unix socket, which cannot listen again.
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

// rebind binds h again to the address that it had. A socket that is shut down or disconnected
// gives up a port that the system chose, though getsockname may still show it. It keeps a
// port that was asked for, and then bind(2) returns EINVAL.
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

// Connected reports whether a process that shares the datagram socket h has connected it.
// Then it receives from that one peer only.
func Connected(h *handle.Handle) bool {
	typ, err := unix.GetsockoptInt(h.FD(), unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || typ != unix.SOCK_DGRAM {
		return false
	}
	_, err = unix.Getpeername(h.FD())
	return err == nil
}

// Unconnect ends the connection of the datagram socket h, whose address is real.
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
