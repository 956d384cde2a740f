package process

import (
	"os"

	"golang.org/x/sys/unix"
)

// closeRangeCloexec marks all descriptors above 2 at once; Linux 5.11.
func closeRangeCloexec() bool {
	return unix.CloseRange(3, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC) == nil
}

// waitExit waits for proc on the runtime's poller: os.Process.Wait alone keeps
// a thread in the kernel for each worker.
func waitExit(proc *os.Process) (*os.ProcessState, error) {
	// The pid cannot be anybody else's: only the Wait below frees it.
	fd, err := unix.PidfdOpen(proc.Pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return proc.Wait() // before Linux 5.10
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	if rc, err := f.SyscallConn(); err == nil {
		rc.Read(func(fd uintptr) bool {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			return n > 0 || err != nil && err != unix.EINTR
		})
	}
	return proc.Wait()
}

// dupOver makes to another descriptor of what fd is one of.
func dupOver(fd, to int) error { return unix.Dup3(fd, to, 0) }
