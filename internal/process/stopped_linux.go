package process

import (
	"os"
	"os/signal"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stoppedAgain is how soon a child that was continued is looked at again: what a
// terminal stops for it stops again, if that goes on.
const stoppedAgain = time.Second

// ContinueStopped continues children that a terminal has stopped, with SIGTTIN or
// SIGTTOU, until stop is closed: nobody else does as long as their parent runs. One
// that was stopped otherwise stays so. tell is called for each that is continued.
func ContinueStopped(stop <-chan struct{}, children func() []int, tell func(pid int, by os.Signal)) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGCHLD)
	defer signal.Stop(signals)
	again := time.After(0) // what was stopped before it was listened for
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
				syscall.Kill(pid, syscall.SIGCONT) // its number is its own while its end is waited for
				again = time.After(stoppedAgain)
			}
		}
	}
}

// stoppedBy is the signal by which a child is stopped, or 0. One that is traced is
// its tracer's.
func stoppedBy(pid int) syscall.Signal {
	var info unix.Siginfo
	if unix.Waitid(unix.P_PID, pid, &info, unix.WSTOPPED|unix.WNOHANG|unix.WNOWAIT, nil) != nil || info.Signo == 0 {
		return 0
	}
	// si_status stands behind si_pid and si_uid, which package unix does not name.
	const status = 16 + unsafe.Sizeof(uintptr(0))
	return syscall.Signal(*(*int32)(unsafe.Add(unsafe.Pointer(&info), status)))
}
