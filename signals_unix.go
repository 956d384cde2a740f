//go:build unix

package cluster

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/go-cluster/cluster/internal/process"
	"github.com/go-cluster/cluster/internal/upgrade"
)

// groupSignals reach the whole foreground group of a terminal, or are for the
// master to act on. A worker leaves them to the master's order.
var groupSignals = []os.Signal{syscall.SIGINT, syscall.SIGHUP, syscall.SIGTTIN, syscall.SIGTTOU}

// terminalStops are sent by the kernel too, to all of a group of which somebody
// reads a terminal in the background, or writes to it after `stty tostop`.
var terminalStops = []os.Signal{syscall.SIGTTIN, syscall.SIGTTOU}

// stopSignals end Run.
var stopSignals = []os.Signal{syscall.SIGTERM, syscall.SIGINT}

// The signals by which Run is told to do something else than to stop, as
// gunicorn and unicorn have them.
const (
	reloadSignal = syscall.SIGHUP
	upSignal     = syscall.SIGTTIN
	downSignal   = syscall.SIGTTOU
	dumpSignal   = syscall.SIGQUIT // the Go runtime prints all goroutines

	upgradeSignal = syscall.SIGUSR2
)

// controlsOf are the signals that control a master with this terminal, or none.
// With one, nobody can tell the kernel's SIGTTIN and SIGTTOU from an
// administrator's.
func controlsOf(t *process.Terminal) []os.Signal {
	if t != nil {
		return []os.Signal{reloadSignal, upgradeSignal}
	}
	return []os.Signal{reloadSignal, upSignal, downSignal, upgradeSignal}
}

// outliveTerminalStops makes this process, and what it starts, go on where a
// terminal would stop it: reads fail then, and writes succeed. A handler would not
// do: the kernel would send the signal again for ever.
func outliveTerminalStops() {
	if process.HasTerminal() {
		signal.Ignore(terminalStops...)
	}
}

// leaveGroupSignals leaves to the master what a terminal sends to all its
// processes at once. For each signal the runtime switches to a thread of its own
// and back, which nobody has to wait for: one that comes before meets a worker
// that does not listen yet.
func leaveGroupSignals() {
	// Not signal.Ignore, which this worker's own children would inherit.
	signal.Notify(make(chan os.Signal, 1), groupSignals...)
	outliveTerminalStops()
}

// outlivesHangUp reports whether this process was made to outlive its terminal, as
// nohup makes it.
func outlivesHangUp() bool { return signal.Ignored(reloadSignal) }

// addressInUse is what programs say of an address that somebody else has.
var addressInUse = syscall.EADDRINUSE.Error()

// isProbe tells the signal that only asks whether a process exists.
func isProbe(sig os.Signal) bool { return sig == syscall.Signal(0) }

// termSignal asks one process to stop.
const termSignal = syscall.SIGTERM

// surviveSIGPIPE makes a write to a closed standard output an error instead of
// the end of the process, until the returned func is called. What this process
// starts does not inherit it, as it would signal.Ignore.
func surviveSIGPIPE() (end func()) {
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	return func() { signal.Stop(broken) }
}

// deliverable says which signals can be sent: all.
func deliverable(os.Signal) error { return nil }

// uid is the user as whom this process opens sockets.
func uid() int { return os.Getuid() }

// whoOpens says in an error message who opens the sockets of the workers: where a
// worker is another user than its master, a port may be forbidden to the one and
// not to the other.
func whoOpens(uid int) string { return fmt.Sprintf("the master opens it, as uid %d", uid) }

// isOther reports whether workers run as another user than this process.
func (c *Credential) isOther() bool { return c != nil && int(c.UID) != os.Geteuid() }

// flushSignals returns what waits until all signals that were caught have been told to
// their channels, while Run has the signals that stop it. It is to be called once more at
// the end.
func flushSignals() func() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, termSignal)
	return sync.OnceFunc(func() { signal.Stop(c) }) // which waits
}

// trapSignals gives the signals back their effect that were ignored for the time of an
// exec. Those that Run is going to act on, if it does, are kept for it in the channel.
func trapSignals(runs bool) (trap chan os.Signal) {
	upgrade.Recover()
	if runs {
		trap = make(chan os.Signal, 16)
		signal.Notify(trap, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTTIN, syscall.SIGTTOU, upgradeSignal)
	}
	return trap
}
