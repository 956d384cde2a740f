//go:build unix

package process

import (
	"os"

	"golang.org/x/sys/unix"
)

// outputPipe is the pipe of a process's output.
func outputPipe() (r, w *os.File, err error) { return os.Pipe() }

// writeOwn writes to this process's standard output (1) or error (2). If that is a
// pipe which nobody reads any more, os.Stderr.Write would end the process: a worker's
// log line must not do that to the master.
func writeOwn(fd int, p []byte) {
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		switch {
		case err == unix.EAGAIN:
			unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1)
		case err != nil && err != unix.EINTR:
			return
		}
		p = p[max(0, n):]
	}
}

// DupOwn returns another descriptor of this process's standard output (1) or error (2), to
// be given to a process. For a pipe it is an open file of its own, if that is possible.
func DupOwn(of int) (fd int, err error) {
	if fd, err = reopenPipeFD(of); err == nil {
		return fd, nil
	}
	fd, err = unix.FcntlInt(uintptr(of), unix.F_DUPFD_CLOEXEC, 3)
	return fd, os.NewSyscallError("fcntl", err)
}

// ReplaceOwn puts fd, which stays the caller's, in the place of this process's
// standard output or error, if that is still the pipe that it began with.
func ReplaceOwn(of, fd int) {
	var st unix.Stat_t
	if unix.Fstat(of, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
		dupOver(fd, of)
	}
}

// OwnPipes gives this process open files of its own for its standard output and error, if
// those are pipes and the system can. A node process that shares the pipes makes them
// non-blocking sooner or later, and then writes would fail when they are full. A pipe that
// is non-blocking already is left alone: package os knows that, and waits.
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
