//go:build !linux

package quic

import (
	"context"
	"net"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/flow"
)

// newConn is not called: no worker gets a place here.
func newConn(context.Context, flow.Place, func(net.Addr) bool) (sockets, error) {
	return nil, cluster.ErrNotSupported
}
