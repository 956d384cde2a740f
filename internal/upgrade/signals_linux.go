package upgrade

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// What the signals do during an exec is set behind the back of package os/signal, which
// has no way back from Ignore to what was registered. The new runtime unblocks all
// signals before it has handlers, so blocking them would not help.

// action is a sigaction of the kernel, with room for that of any architecture. The handler
// is its first word but on mips, which is not built for.
type action [8]uintptr

const (
	toDefault = 0 // SIG_DFL
	toNothing = 1 // SIG_IGN
)

func sigaction(sig unix.Signal, set, was *action) {
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(was)), 8, 0, 0)
}

// ignored are those that must not end the new program before it can catch them. A SIGPROF
// would as well, and it comes from a timer.
var ignored = []unix.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGTTIN, unix.SIGTTOU, unix.SIGPROF}

// signals are what they did before.
type signals map[unix.Signal]*action

// quietSignals ignores what would end the new program before it can catch it. A SIGTERM
// ends this process from here on, as it would end any program that starts: the handler
// that catches it would vanish with what it has caught.
func quietSignals() signals {
	was := make(signals)
	set := func(sig unix.Signal, to uintptr) {
		was[sig] = new(action)
		sigaction(sig, &action{to}, was[sig])
	}
	for _, sig := range ignored {
		set(sig, toNothing)
	}
	set(unix.SIGTERM, toDefault)
	return was
}

func (was signals) undo() {
	for sig, a := range was {
		sigaction(sig, a, nil)
	}
}

// Recover gives the signals their defaults that were ignored for the time of the exec,
// and that this program's runtime has left so. It has handlers for the others.
func Recover() {
	for _, sig := range []unix.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGTTIN, unix.SIGTTOU} {
		var now action
		if sigaction(sig, nil, &now); now[0] == toNothing {
			sigaction(sig, &action{toDefault}, nil)
		}
	}
}
