package clustertest

import (
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

func socketProtocol(fd uintptr) int {
	n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return -1
	}
	return n
}

// SocketBacklog returns the bound of a listening socket's queue.
func SocketBacklog(fd uintptr) int {
	info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return -1
	}
	return int(info.Sacked) // the kernel has it in this field for a listening socket
}

// connSettings tells how keep-alive is set on c: "off", or the seconds of idle
// time, interval and the count.
func connSettings(c net.Conn) (s string) {
	s = "-"
	rc, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return s
	}
	rc.Control(func(fd uintptr) {
		get := func(level, opt int) int {
			n, _ := unix.GetsockoptInt(int(fd), level, opt)
			return n
		}
		if c.LocalAddr().Network() != "tcp" {
			return
		}
		if get(unix.SOL_SOCKET, unix.SO_KEEPALIVE) == 0 {
			s = "off"
			return
		}
		s = fmt.Sprintf("%d/%d/%d", get(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE), get(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL), get(unix.IPPROTO_TCP, unix.TCP_KEEPCNT))
	})
	return s
}
