//go:build unix && !linux

package upgrade

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

func nameless() (fd int, err error) {
	f, err := os.CreateTemp("", "cluster-upgrade-")
	if err != nil {
		return -1, err
	}
	defer f.Close()
	os.Remove(f.Name())
	fd, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	return fd, os.NewSyscallError("fcntl", err)
}

// sealAll does nothing: package process has marked what was open before the first fork.
func sealAll() {}

func environ() []string { return os.Environ() }

// OpenRunning returns -1: this system cannot execute a program through its descriptor.
func OpenRunning() (fd int, err error) { return -1, nil }

// signals has nothing here: undo and Recover need only the list.
type signals struct{}

var inTheWay = []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTTIN, syscall.SIGTTOU}

// quietSignals ignores the signals that would end the new program before it can catch them.
func quietSignals() signals {
	signal.Ignore(inTheWay...)
	return signals{}
}

func (signals) undo() { signal.Reset(inTheWay...) }

// Recover gives the signals their defaults that were ignored for the time of the exec.
func Recover() { signal.Reset(inTheWay...) }
