package process

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// reopenPipe opens the pipe that f writes to once more, or returns nil if f is no
// pipe or that cannot be done. Whether writes wait is a flag of the open file:
// node, for one, sets it on the pipes that it gets, and would set it for all who
// share them, whose writes then fail when the pipe is full.
func reopenPipe(f *os.File) (own *os.File) {
	rc, err := f.SyscallConn() // Fd would make it blocking
	if err != nil {
		return nil
	}
	rc.Control(func(fd uintptr) {
		if n, err := reopenPipeFD(int(fd)); err == nil {
			own = os.NewFile(uintptr(n), f.Name())
		}
	})
	return own
}

// reopenPipeFD is reopenPipe for a descriptor. Another kind of file is shared on
// purpose: a regular file has one position for all who write to it.
func reopenPipeFD(fd int) (own int, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return -1, os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return -1, unix.EINVAL
	}
	// Without the flag it would wait for somebody to read.
	own, err = unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("open", err)
	}
	if err := unix.SetNonblock(own, false); err != nil {
		unix.Close(own)
		return -1, os.NewSyscallError("fcntl", err)
	}
	return own, nil
}
