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

// termSignal asks one process to stop.
const termSignal = syscall.SIGTERM

// surviveSIGPIPE makes a write to a closed standard output an error instead of
// the end of the process.
func surviveSIGPIPE() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

// deliverable says which signals can be sent: all.
func deliverable(os.Signal) error { return nil }
