//go:build unix

package systemd

import (
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// supported says that a service manager of this kind is possible.
const supported = true

// monotonic returns the time of the clock that the manager uses as well.
func monotonic() time.Duration {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano())
}

// firstSocket is the first of the manager's descriptors: SD_LISTEN_FDS_START.
const firstSocket = 3

// Sockets takes over the sockets that a service manager has opened, or kept, for this
// process. It leaves out descriptors of another kind, such as fifos and files. The caller
// closes a socket with [CloseSocket].
func Sockets() (all []Socket) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil
	}
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for fd := firstSocket; fd < firstSocket+n; fd++ {
		unix.CloseOnExec(fd)
		if _, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
			continue
		}
		// All processes that use the socket share the open file description. Were it
		// blocking, their Close and their deadlines would hang.
		unix.SetNonblock(fd, true)
		s := Socket{FD: fd}
		if i := fd - firstSocket; len(names) == n {
			s.Name = names[i]
		}
		all = append(all, s)
	}
	return all
}

// Descriptors returns the descriptors that a service manager has given to this process, as
// far as they are open. The next program of this process (after an upgrade) must find them
// at the same numbers.
func Descriptors() (fds []int) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil
	}
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	for fd := firstSocket; fd < firstSocket+n; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			fds = append(fds, fd)
		}
	}
	return fds
}
