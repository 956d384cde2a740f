package systemd

import (
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// CanStore says that the service manager of this system can keep descriptors.
const CanStore = true

// writeWith sends a datagram with descriptors. Package net has no method for that on a
// socket that is connected.
func writeWith(c *net.UnixConn, text string, fds []int) {
	rc, err := c.SyscallConn()
	if err != nil {
		return
	}
	rc.Write(func(fd uintptr) bool {
		return unix.Sendmsg(int(fd), []byte(text), unix.UnixRights(fds...), nil, 0) != unix.EAGAIN
	})
}

// CloseSocket closes the socket that a service manager gave at fd. The null device takes
// its number: the next program of this process (after an upgrade) looks at the number
// again, and must not find another socket there.
func CloseSocket(fd int) {
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return // no descriptor is free: the socket stays open
	}
	defer unix.Close(null)
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	unix.Dup3(null, fd, unix.O_CLOEXEC)
}
