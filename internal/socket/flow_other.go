//go:build !linux

package socket

import (
	"context"
	"net"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/handle"
)

// Flows is a group of sockets on Linux. Here OpenFlows returns none.
type Flows struct {
	Addr    net.Addr
	Sockets []*handle.Handle
	Shares  int
}

// FlowTag is the beginning of all connection IDs of a group.
type FlowTag [4]byte

// FlowsSupported says whether OpenFlows works on this system.
const FlowsSupported = false

// OpenFlows returns errs.NotSupported.
func OpenFlows(context.Context, Address, int, FlowTag, int) (*Flows, error) {
	return nil, errs.NotSupported
}

// RestoreFlows returns nil.
func RestoreFlows(Address, net.Addr, []*handle.Handle, int) *Flows { return nil }

// Append returns errs.NotSupported.
func (*Flows) Append(context.Context) error { return errs.NotSupported }

// Release does nothing.
func (*Flows) Release() {}
