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
	if f := openProcess(proc.Pid); f != nil { // it is nil before Linux 5.10
		waitReadable(f)
		f.Close()
	}
	return proc.Wait()
}

// AwaitExit waits until the process has ended, without taking its status. It reports
// false if the system cannot tell, before Linux 5.10.
func (p *Process) AwaitExit() bool {
	f := openProcess(p.PID)
	if f == nil {
		return false
	}
	defer f.Close()
	return waitReadable(f)
}

// openProcess returns a pidfd for waitReadable, or nil if the system has none.
func openProcess(pid int) *os.File {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), "pidfd")
}

// waitReadable waits until the process of a pidfd has ended. It returns false if the pidfd
// was closed meanwhile.
func waitReadable(f *os.File) bool {
	rc, err := f.SyscallConn()
	if err != nil {
		return false
	}
	return rc.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 || err != nil && err != unix.EINTR
	}) == nil
}

// dupOver makes the number to a duplicate of fd.
func dupOver(fd, to int) error { return unix.Dup3(fd, to, 0) }
