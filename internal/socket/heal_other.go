//go:build !linux

package socket

import (
	"net"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/handle"
)

// Heals says whether a shared socket that one process has broken can be mended. On these
// systems no process can shut down a listening socket for the others, so nothing below is
// called.
const Heals = false

// ShutDown is false.
func ShutDown(*handle.Handle) bool { return false }

// Relisten is false.
func Relisten(*handle.Handle, Address, net.Addr) (ok bool, err error) { return false, nil }

// Connected is false.
func Connected(*handle.Handle) bool { return false }

// Unconnect does nothing.
func Unconnect(*handle.Handle, net.Addr) error { return nil }

// Watch watches nothing.
type Watch struct{}

// NewWatch returns errs.NotSupported.
func NewWatch() (*Watch, error) { return nil, errs.NotSupported }

// Add does nothing.
func (*Watch) Add(*handle.Handle) error { return nil }

// Remove returns 0.
func (*Watch) Remove(*handle.Handle) (left int) { return 0 }

// Wait is false.
func (*Watch) Wait() bool { return false }

// Close does nothing.
func (*Watch) Close() {}
