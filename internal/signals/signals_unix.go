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

// Group are the signals that a terminal sends to its whole foreground group, and those that
// are meant for the master. A worker ignores them and waits for the master's order.
var Group = []os.Signal{syscall.SIGINT, syscall.SIGHUP, syscall.SIGTTIN, syscall.SIGTTOU}

// terminalStops are signals that the kernel sends as well: to a whole process group in the
// background, when one process of it reads the terminal, or writes to it after `stty tostop`.
var terminalStops = []os.Signal{syscall.SIGTTIN, syscall.SIGTTOU}

// Stop are the signals that end Run.
var Stop = []os.Signal{syscall.SIGTERM, syscall.SIGINT}

// The signals that tell Run to do something other than to stop. gunicorn and unicorn use
// the same ones.
const (
	Reload = syscall.SIGHUP
	Up     = syscall.SIGTTIN
	Down   = syscall.SIGTTOU
	Dump   = syscall.SIGQUIT // the Go runtime prints all goroutines

	Upgrade = syscall.SIGUSR2
)

// Controls returns the signals that control a master with the terminal t, which may be nil.
// A master with a terminal cannot tell an administrator's SIGTTIN and SIGTTOU from the
// kernel's.
func Controls(t *process.Terminal) []os.Signal {
	if t != nil {
		return []os.Signal{Reload, Upgrade}
	}
	return []os.Signal{Reload, Up, Down, Upgrade}
}

// OutliveTerminalStops makes this process, and the processes that it starts, go on where a
// terminal would stop them: their reads fail, and their writes succeed. It ignores the
// signals. A handler for them would not do: the kernel would send the signal again and
// again.
func OutliveTerminalStops() {
	if process.HasTerminal() {
		signal.Ignore(terminalStops...)
	}
}

// LeaveGroup leaves the signals of Group to the master. The caller need not wait for it,
// although each signal takes the runtime two switches of threads: a signal that comes
// earlier meets a worker that does not listen yet.
func LeaveGroup() {
	// Not signal.Ignore: this worker's own children would inherit that.
	signal.Notify(make(chan os.Signal, 1), Group...)
	OutliveTerminalStops()
}

// OutlivesHangUp reports whether this process was started with SIGHUP ignored, as nohup
// does: it is to outlive its terminal.
func OutlivesHangUp() bool { return signal.Ignored(Reload) }

// IsProbe reports whether sig is 0, which only asks whether a process exists.
func IsProbe(sig os.Signal) bool { return sig == syscall.Signal(0) }

// Term asks one process to stop.
const Term = syscall.SIGTERM

// SurviveSIGPIPE makes a write to a closed standard output an error instead of the end of
// the process, until end is called. The processes that this one starts do not inherit
// that; signal.Ignore they would.
func SurviveSIGPIPE() (end func()) {
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	return func() { signal.Stop(broken) }
}

// Deliverable returns an error for a signal that this system cannot send. This one can send
// all.
func Deliverable(os.Signal) error { return nil }

// Flush returns a func that waits until the runtime has passed every signal that it caught
// to the channels of package signal. Flush itself is called while Run has its signals
// caught. The func must be called, at the end at the latest; a second call does nothing.
func Flush() func() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, Term)
	return sync.OnceFunc(func() { signal.Stop(c) }) // Stop waits for that
}

// Trap ends the ignoring of signals that upgrade began before its exec. If runs, it catches
// those that Run acts on, and keeps them in the channel until Run reads it.
func Trap(runs bool) (trap chan os.Signal) {
	upgrade.Recover()
	if runs {
		trap = make(chan os.Signal, 16)
		signal.Notify(trap, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTTIN, syscall.SIGTTOU, Upgrade)
	}
	return trap
}
