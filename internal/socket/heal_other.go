//go:build !linux

package socket

import (
	"net"

	"github.com/go-cluster/cluster/internal/handle"
)

// ShutDown: other systems do not let a listening socket be shut down for others.
func ShutDown(*handle.Handle) bool { return false }

// Relisten is never called here.
func Relisten(*handle.Handle, Address, net.Addr) (ok bool, err error) { return false, nil }
