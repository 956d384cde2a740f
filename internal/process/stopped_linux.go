package process

import (
	"os"
	"os/signal"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stoppedAgain is how soon a child that was continued is looked at again: if it goes on
// using the terminal, the terminal stops it once more.
const stoppedAgain = time.Second

// ContinueStopped continues children that a terminal has stopped by SIGTTIN or SIGTTOU,
// until stop is closed: as long as their parent runs nobody else does. A child that was
// stopped by another signal stays stopped. tell is called for each that is continued.
func ContinueStopped(stop <-chan struct{}, children func() []int, tell func(pid int, by os.Signal)) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGCHLD)
	defer signal.Stop(signals)
	again := time.After(0) // for children that were stopped before signal.Notify
	for {
		select {
		case <-signals:
			if again != nil {
				continue // it is looked at soon
			}
		case <-again:
			again = nil
		case <-stop:
			return
		}
		for _, pid := range children() {
			if by := stoppedBy(pid); by == syscall.SIGTTIN || by == syscall.SIGTTOU {
				tell(pid, by)
				syscall.Kill(pid, syscall.SIGCONT) // the pid is not reused before the child is waited for
				again = time.After(stoppedAgain)
			}
		}
	}
}

// stoppedBy is the signal that has stopped a child, or 0. It is 0 for a child that is
// traced: there the tracer gets the report.
func stoppedBy(pid int) syscall.Signal {
	var info unix.Siginfo
	if unix.Waitid(unix.P_PID, pid, &info, unix.WSTOPPED|unix.WNOHANG|unix.WNOWAIT, nil) != nil || info.Signo == 0 {
		return 0
	}
	// si_status stands behind si_pid and si_uid, which package unix does not name.
	const status = 16 + unsafe.Sizeof(uintptr(0))
	return syscall.Signal(*(*int32)(unsafe.Add(unsafe.Pointer(&info), status)))
}
