package systemd

import (
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// CanStore says that a service manager of this system can keep descriptors.
const CanStore = true

// writeWith sends a datagram with descriptors beside it. Package net does not do that on a
// connection.
func writeWith(c *net.UnixConn, text string, fds []int) {
	rc, err := c.SyscallConn()
	if err != nil {
		return
	}
	rc.Write(func(fd uintptr) bool {
		return unix.Sendmsg(int(fd), []byte(text), unix.UnixRights(fds...), nil, 0) != unix.EAGAIN
	})
}

// CloseSocket closes what a service manager gave at fd. The number stays taken, by the
// null device: another program of this process (after an upgrade) looks there again, and
// must not find something else.
func CloseSocket(fd int) {
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return // as long as no descriptor is free it stays
	}
	defer unix.Close(null)
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	unix.Dup3(null, fd, unix.O_CLOEXEC)
}
