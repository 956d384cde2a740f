package signals

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/process"
)

// Stop are those that end Run. The runtime makes an os.Interrupt of Ctrl-C and
// Ctrl-Break, and a SIGTERM of a console that is closed, a logoff and a shutdown.
var Stop = []os.Signal{os.Interrupt, syscall.SIGTERM}

// Group are those that reach every process of a console: a worker leaves them to the
// master's order. Ctrl-C does not come to a worker, which has a process group of
// its own; Ctrl-Break does.
var Group = []os.Signal{os.Interrupt}

// Term: the console is closed, and the system ends what does not end by
// itself in a few seconds.
const Term = syscall.SIGTERM

// Controls: there are no others, so none for Run to do something else than to stop.
func Controls(*process.Terminal) []os.Signal { return nil }

// No terminal stops a process, and none tells of its end by such a signal.
func OutliveTerminalStops() {}
func OutlivesHangUp() bool  { return false }

// LeaveGroup leaves to the master what a console sends to all its
// processes at once.
func LeaveGroup() {
	signal.Notify(make(chan os.Signal, 1), Group...)
}

const (
	Reload  = syscall.Signal(-1)
	Up      = syscall.Signal(-2)
	Down    = syscall.Signal(-3)
	Upgrade = syscall.Signal(-4)
	Dump    = syscall.SIGKILL // nothing makes a process print its goroutines
)

// IsProbe tells the signal that only asks whether a process exists.
func IsProbe(os.Signal) bool { return false }

// Deliverable says which signals can be sent: only that to end at once.
func Deliverable(sig os.Signal) error {
	if sig != os.Kill {
		return fmt.Errorf("signal %v on Windows: %w; use Disconnect, or Kill without a signal", sig, errs.NotSupported)
	}
	return nil
}

// SurviveSIGPIPE: a write to a closed standard output is an error here.
func SurviveSIGPIPE() (end func()) { return func() {} }

// Nothing is replaced here: see package upgrade.
func Flush() func()            { return func() {} }
func Trap(bool) chan os.Signal { return nil }
