package cluster

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/windows"

	"github.com/go-cluster/cluster/internal/drain"
	"github.com/go-cluster/cluster/internal/process"
	"github.com/go-cluster/cluster/internal/socket"
)

// stopSignals end Run. The runtime makes an os.Interrupt of Ctrl-C and
// Ctrl-Break, and a SIGTERM of a console that is closed, a logoff and a shutdown.
var stopSignals = []os.Signal{os.Interrupt, syscall.SIGTERM}

// groupSignals reach every process of a console: a worker leaves them to the
// master's order. Ctrl-C does not come to a worker, which has a process group of
// its own; Ctrl-Break does.
var groupSignals = []os.Signal{os.Interrupt}

// termSignal: the console is closed, and the system ends what does not end by
// itself in a few seconds.
const termSignal = syscall.SIGTERM

// There are no others, so none for Run to do something else than to stop.
func controlsOf(*process.Terminal) []os.Signal { return nil }

// No terminal stops a process, and none tells of its end by such a signal.
func outliveTerminalStops() {}
func outlivesHangUp() bool  { return false }

// leaveGroupSignals leaves to the master what a console sends to all its
// processes at once.
func leaveGroupSignals() {
	signal.Notify(make(chan os.Signal, 1), groupSignals...)
}

const (
	reloadSignal  = syscall.Signal(-1)
	upSignal      = syscall.Signal(-2)
	downSignal    = syscall.Signal(-3)
	upgradeSignal = syscall.Signal(-4)
	dumpSignal    = syscall.SIGKILL // nothing makes a process print its goroutines
)

// addressInUse is what programs say of an address that somebody else has.
var addressInUse = windows.WSAEADDRINUSE.Error()

// isProbe tells the signal that only asks whether a process exists.
func isProbe(os.Signal) bool { return false }

// deliverable says which signals can be sent: only that to end at once.
func deliverable(sig os.Signal) error {
	if sig != os.Kill {
		return fmt.Errorf("signal %v on Windows: %w; use Disconnect, or Kill without a signal", sig, ErrNotSupported)
	}
	return nil
}

// surviveSIGPIPE: a write to a closed standard output is an error here.
func surviveSIGPIPE() (end func()) { return func() {} }

// A drain keeps what the connections of a shared socket can do, which are none of
// package net's here.
var _ drain.StreamConn = (*socket.Conn)(nil)

// uid is the user as whom this process opens sockets: users have no numbers here.
func uid() int { return -1 }

// whoOpens says in an error message who opens the sockets of the workers.
func whoOpens(int) string { return "the master opens it" }

// isOther reports whether workers run as another user than this process.
func (c *Credential) isOther() bool { return false }

// Nothing is replaced here: see package upgrade.
func flushSignals() func()            { return func() {} }
func trapSignals(bool) chan os.Signal { return nil }
