//go:build !linux

package quic

import (
	"context"
	"net"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/flow"
)

// newConn is not called here: nobody gets a place.
func newConn(context.Context, flow.Place, func(net.Addr) bool) (sockets, error) {
	return nil, cluster.ErrNotSupported
}
