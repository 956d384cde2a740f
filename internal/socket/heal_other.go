//go:build !linux

package socket

import (
	"net"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/handle"
)

// Heals says whether a shared socket that one process has broken can be mended. Other
// systems do not let a listening socket be shut down for others. What follows is not
// called there.
const Heals = false

func ShutDown(*handle.Handle) bool                                    { return false }
func Relisten(*handle.Handle, Address, net.Addr) (ok bool, err error) { return false, nil }
func Connected(*handle.Handle) bool                                   { return false }
func Unconnect(*handle.Handle, net.Addr) error                        { return nil }

// Watch watches nothing.
type Watch struct{}

func NewWatch() (*Watch, error)              { return nil, errs.NotSupported }
func (*Watch) Add(*handle.Handle) error      { return nil }
func (*Watch) Remove(*handle.Handle) (n int) { return 0 }
func (*Watch) Wait() bool                    { return false }
func (*Watch) Close()                        {}
