package socket

import (
	"net"
	"os"

	"github.com/go-cluster/cluster/internal/handle"
	"golang.org/x/sys/unix"
)

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
	sa, err := unix.Getsockname(h.FD())
	if err != nil {
		return true, os.NewSyscallError("getsockname", err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		sa.Port = tcp.Port
		copy(sa.Addr[:], tcp.IP.To4())
	case *unix.SockaddrInet6:
		sa.Port = tcp.Port
		copy(sa.Addr[:], tcp.IP.To16())
	}
	// A port that the system chose was given up, though getsockname shows it still. One
	// that was asked for was not: then the socket is bound (EINVAL).
	if err := unix.Bind(h.FD(), sa); err != nil && err != unix.EINVAL {
		return true, os.NewSyscallError("bind", err)
	}
	backlog := a.Backlog
	if backlog == 0 {
		backlog = maxBacklog()
	}
	return true, os.NewSyscallError("listen", unix.Listen(h.FD(), backlog))
}
