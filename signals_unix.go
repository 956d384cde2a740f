//go:build unix

package cluster

import (
	"os"
	"os/signal"
	"syscall"
)

// groupSignals reach the whole foreground group of a terminal, or are for the
// master to act on. A worker leaves them to the master's order.
var groupSignals = []os.Signal{syscall.SIGINT, syscall.SIGHUP, syscall.SIGTTIN, syscall.SIGTTOU}

// stopSignals end Run.
var stopSignals = []os.Signal{syscall.SIGTERM, syscall.SIGINT}

// The signals by which Run is told to do something else than to stop, as
// gunicorn and unicorn have them.
const (
	reloadSignal = syscall.SIGHUP
	upSignal     = syscall.SIGTTIN
	downSignal   = syscall.SIGTTOU
	dumpSignal   = syscall.SIGQUIT // the Go runtime prints all goroutines
)

var controlSignals = []os.Signal{reloadSignal, upSignal, downSignal}

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
