//go:build !linux

package socket

import (
	"context"
	"net"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/handle"
)

// Flows are what other systems do not have. What follows is not called there.
type Flows struct {
	Addr    net.Addr
	Sockets []*handle.Handle
	Shares  int
}

// FlowTag is what begins the connection IDs of a group.
type FlowTag [4]byte

// FlowsSupported says whether this system can have them.
const FlowsSupported = false

func OpenFlows(context.Context, Address, int, FlowTag, int) (*Flows, error) {
	return nil, errs.NotSupported
}
func RestoreFlows(Address, net.Addr, []*handle.Handle, int) *Flows { return nil }
func (*Flows) Append(context.Context) error                        { return errs.NotSupported }
func (*Flows) Release()                                            {}
