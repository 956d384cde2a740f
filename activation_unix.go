//go:build unix

package cluster

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// firstActivated is where a service manager's sockets begin: SD_LISTEN_FDS_START
// of sd_listen_fds(3).
const firstActivated = 3

// activatedFDs takes over what a service manager opened for this process: sockets,
// and perhaps other files.
func activatedFDs() (fds []int) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(pid) {
		return nil
	}
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	for fd := firstActivated; fd < firstActivated+n; fd++ {
		unix.CloseOnExec(fd)
		// Workers share the open file description; a blocking one would hang
		// their Close and their deadlines.
		if _, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err == nil {
			unix.SetNonblock(fd, true)
			fds = append(fds, fd)
		}
	}
	return fds
}
