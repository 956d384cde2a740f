package signals

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/process"
)

// Stop are the signals that end Run. The runtime makes an os.Interrupt of Ctrl-C and
// Ctrl-Break, and a SIGTERM when the console is closed, the user logs off or the system
// shuts down.
var Stop = []os.Signal{os.Interrupt, syscall.SIGTERM}

// Group are the signals that reach every process of a console. A worker ignores them and
// waits for the master's order. Ctrl-C does not come to a worker, since that has a process
// group of its own; Ctrl-Break does.
var Group = []os.Signal{os.Interrupt}

// Term says that the console is closed. The system ends a process that does not end by
// itself within a few seconds.
const Term = syscall.SIGTERM

// Controls returns none: no signal tells Run to do something other than to stop.
func Controls(*process.Terminal) []os.Signal { return nil }

// OutliveTerminalStops does nothing: no terminal stops a process here.
func OutliveTerminalStops() {}

// OutlivesHangUp is false: no signal tells of the end of a terminal here.
func OutlivesHangUp() bool { return false }

// LeaveGroup leaves the signals of Group to the master.
func LeaveGroup() {
	signal.Notify(make(chan os.Signal, 1), Group...)
}

// Signals that nothing sends here, but for Dump.
const (
	Reload  = syscall.Signal(-1)
	Up      = syscall.Signal(-2)
	Down    = syscall.Signal(-3)
	Upgrade = syscall.Signal(-4)
	Dump    = syscall.SIGKILL // nothing makes a process print its goroutines
)

// IsProbe is false: no signal asks whether a process exists here.
func IsProbe(os.Signal) bool { return false }

// Deliverable returns an error for a signal that this system cannot send: all but os.Kill.
func Deliverable(sig os.Signal) error {
	if sig != os.Kill {
		return fmt.Errorf("signal %v on Windows: %w; use Disconnect, or Kill without a signal", sig, errs.NotSupported)
	}
	return nil
}

// SurviveSIGPIPE does nothing: a write to a closed standard output is always an error here.
func SurviveSIGPIPE() (end func()) { return func() {} }

// Flush does nothing: no master is replaced here (see package upgrade).
func Flush() func() { return func() {} }

// Trap does nothing, as Flush.
func Trap(bool) chan os.Signal { return nil }
