//go:build unix

package process

import (
	"os"

	"golang.org/x/sys/unix"
)

// outputPipe is the pipe of a process's output.
func outputPipe() (r, w *os.File, err error) { return os.Pipe() }

// writeStderr writes to this process's standard error. If that is a pipe which
// nobody reads any more, os.Stderr.Write would end the process: a worker's log
// line must not do that to the master.
func writeStderr(p []byte) {
	for len(p) > 0 {
		n, err := unix.Write(2, p)
		switch {
		case err == unix.EAGAIN:
			unix.Poll([]unix.PollFd{{Fd: 2, Events: unix.POLLOUT}}, -1)
		case err != nil && err != unix.EINTR:
			return
		}
		p = p[max(0, n):]
	}
}

// DupStderr is another descriptor of this process's standard error, to be given
// to a process; of a pipe an open file of its own, if possible.
func DupStderr() (fd int, err error) {
	if fd, err = reopenPipeFD(2); err == nil {
		return fd, nil
	}
	fd, err = unix.FcntlInt(2, unix.F_DUPFD_CLOEXEC, 3)
	return fd, os.NewSyscallError("fcntl", err)
}

// ReplaceStderr puts fd, which stays the caller's, in the place of this process's
// standard error, if that is still the pipe that it began with.
func ReplaceStderr(fd int) {
	var st unix.Stat_t
	if unix.Fstat(2, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
		dupOver(fd, 2)
	}
}

// OwnPipes gives this process open files of its own of the pipes that its standard
// output and error are, where that is possible. A node process that shares them
// makes them non-blocking sooner or later, and writes would fail when they are full;
// if it has done so before, package os knows, and waits.
func OwnPipes() {
	for fd := 1; fd <= 2; fd++ {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil || flags&unix.O_NONBLOCK != 0 {
			continue
		}
		if own, err := reopenPipeFD(fd); err == nil {
			dupOver(own, fd)
			unix.Close(own)
		}
	}
}
