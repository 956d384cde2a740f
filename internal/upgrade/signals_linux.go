package upgrade

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// What signals do during an exec is set without package os/signal, whose Ignore forgets what
// was registered. Blocking the signals would not help: the new runtime unblocks all signals
// before it has handlers.

// action is a sigaction of the kernel, with room for that of any architecture. The handler
// is its first word, except on mips, for which this file is not built.
type action [8]uintptr

const (
	toDefault = 0 // SIG_DFL
	toNothing = 1 // SIG_IGN
)

func sigaction(sig unix.Signal, set, was *action) {
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(was)), 8, 0, 0)
}

// ignored are the signals that must not end the new program before it can catch them.
// SIGPROF is among them: it comes from a timer, which goes on over the exec.
var ignored = []unix.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGTTIN, unix.SIGTTOU, unix.SIGPROF}

// signals has what the ignored signals did before.
type signals map[unix.Signal]*action

// quietSignals ignores the signals that would end the new program before it can catch them.
// SIGTERM ends this process from here on, as it would end any program that starts. It is not
// caught any more, since a SIGTERM that is caught and not yet acted on would be lost.
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

// Recover gives the signals their defaults that were ignored for the time of the exec. The
// new runtime leaves them ignored; for other signals it has handlers.
func Recover() {
	for _, sig := range []unix.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGTTIN, unix.SIGTTOU} {
		var now action
		if sigaction(sig, nil, &now); now[0] == toNothing {
			sigaction(sig, &action{toDefault}, nil)
		}
	}
}
