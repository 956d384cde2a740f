//go:build unix

package systemd

import (
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// supported: a service manager of this kind is possible.
const supported = true

// monotonic is the time that the manager compares with its own.
func monotonic() time.Duration {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano())
}

// firstSocket is where the manager's sockets begin: SD_LISTEN_FDS_START.
const firstSocket = 3

// Sockets takes over the sockets that a service manager has opened, or kept, for this
// process. What else it gave, as fifos and files, is not among them. To share one
// it is duplicated; to have one no more, see [CloseSocket].
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
		// All who use it share the open file description; a blocking one would
		// hang their Close and their deadlines.
		unix.SetNonblock(fd, true)
		s := Socket{FD: fd}
		if i := fd - firstSocket; len(names) == n {
			s.Name = names[i]
		}
		all = append(all, s)
	}
	return all
}

// Descriptors are those that a service manager has given to this process and that are
// still open: another program of it is to find them at the same numbers.
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
