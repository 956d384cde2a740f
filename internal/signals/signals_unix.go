//go:build unix

package signals

import (
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/go-cluster/cluster/internal/process"
	"github.com/go-cluster/cluster/internal/upgrade"
)

// Group are those that reach the whole foreground group of a terminal, or are for the
// master to act on. A worker leaves them to the master's order.
var Group = []os.Signal{syscall.SIGINT, syscall.SIGHUP, syscall.SIGTTIN, syscall.SIGTTOU}

// terminalStops are sent by the kernel too, to all of a group of which somebody
// reads a terminal in the background, or writes to it after `stty tostop`.
var terminalStops = []os.Signal{syscall.SIGTTIN, syscall.SIGTTOU}

// Stop are those that end Run.
var Stop = []os.Signal{syscall.SIGTERM, syscall.SIGINT}

// The signals by which Run is told to do something else than to stop, as
// gunicorn and unicorn have them.
const (
	Reload = syscall.SIGHUP
	Up     = syscall.SIGTTIN
	Down   = syscall.SIGTTOU
	Dump   = syscall.SIGQUIT // the Go runtime prints all goroutines

	Upgrade = syscall.SIGUSR2
)

// Controls are the signals that control a master with this terminal, or none.
// With one, nobody can tell the kernel's SIGTTIN and SIGTTOU from an
// administrator's.
func Controls(t *process.Terminal) []os.Signal {
	if t != nil {
		return []os.Signal{Reload, Upgrade}
	}
	return []os.Signal{Reload, Up, Down, Upgrade}
}

// OutliveTerminalStops makes this process, and what it starts, go on where a
// terminal would stop it: reads fail then, and writes succeed. A handler would not
// do: the kernel would send the signal again for ever.
func OutliveTerminalStops() {
	if process.HasTerminal() {
		signal.Ignore(terminalStops...)
	}
}

// LeaveGroup leaves to the master what a terminal sends to all its
// processes at once. For each signal the runtime switches to a thread of its own
// and back, which nobody has to wait for: one that comes before meets a worker
// that does not listen yet.
func LeaveGroup() {
	// Not signal.Ignore, which this worker's own children would inherit.
	signal.Notify(make(chan os.Signal, 1), Group...)
	OutliveTerminalStops()
}

// OutlivesHangUp reports whether this process was made to outlive its terminal, as
// nohup makes it.
func OutlivesHangUp() bool { return signal.Ignored(Reload) }

// IsProbe tells the signal that only asks whether a process exists.
func IsProbe(sig os.Signal) bool { return sig == syscall.Signal(0) }

// Term asks one process to stop.
const Term = syscall.SIGTERM

// SurviveSIGPIPE makes a write to a closed standard output an error instead of
// the end of the process, until the returned func is called. What this process
// starts does not inherit it, as it would signal.Ignore.
func SurviveSIGPIPE() (end func()) {
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	return func() { signal.Stop(broken) }
}

// Deliverable says which signals can be sent: all.
func Deliverable(os.Signal) error { return nil }

// Flush returns what waits until all signals that were caught have been told to
// their channels, while Run has the signals that stop it. It is to be called once more at
// the end.
func Flush() func() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, Term)
	return sync.OnceFunc(func() { signal.Stop(c) }) // which waits
}

// Trap gives the signals back their effect that were ignored for the time of an
// exec. Those that Run is going to act on, if it does, are kept for it in the channel.
func Trap(runs bool) (trap chan os.Signal) {
	upgrade.Recover()
	if runs {
		trap = make(chan os.Signal, 16)
		signal.Notify(trap, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTTIN, syscall.SIGTTOU, Upgrade)
	}
	return trap
}
