package cluster

import (
	"net"
	"os"
	"syscall"
)

// What supervision takes from Unix, and Windows has not.

var controlSignals []os.Signal

const (
	reloadSignal = syscall.Signal(-1)
	upSignal     = syscall.Signal(-2)
	downSignal   = syscall.Signal(-3)
	dumpSignal   = syscall.SIGKILL
)

// notifier: there is no sd_notify.
type notifier struct{}

func (m *master) notifyBegin() {}
func (m *master) notifyEnd()   {}

func (m *master) notifyFlush(<-chan struct{}) {}

func (m *master) notifyUp()        {}
func (m *master) notifyReloading() {}
func (m *master) notifyReloaded()  {}

// activated: there is no socket activation.
var activated activatedSockets

type activatedSockets struct{}

func (*activatedSockets) find(target) (*handle, net.Addr) { return nil, nil }

type tail struct{}

func (*tail) handOver(*Process) {}

func (*Process) lastOutput() string { return "" }

func takeStderr(*handle) {}
