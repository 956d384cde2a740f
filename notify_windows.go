package cluster

import (
	"net"

	"github.com/go-cluster/cluster/internal/handle"
)

// What service managers of Unix offer, and none has here.

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

func (*activatedSockets) find(target) (*handle.Handle, net.Addr) { return nil, nil }
