//go:build !linux

package socket

import (
	"context"
	"net"
	"syscall"
	"time"

	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/handle"
)

// Groups says whether this system has groups of sockets that share the connections of one
// address, and tells how many connections wait at each. SO_REUSEPORT means something else on
// most of these systems. FreeBSD's SO_REUSEPORT_LB spreads connections, and SO_LISTENQLEN tells
// how many wait, but no program can choose the socket; and it has not been tried.
const Groups = false

// Instruction is an instruction of a program that chooses a socket.
type Instruction struct{}

// Group has the socket that [OpenGroup] has opened.
type Group struct {
	Sockets []*handle.Handle
	Addr    net.Addr
	Lack    error // why there is only one socket, as [Open] opens it
	Refused error
}

// OpenGroup opens one socket.
func OpenGroup(ctx context.Context, a Address, _ int, _ []Instruction) (g Group, err error) {
	h, addr, _, err := Open(ctx, a)
	if err != nil {
		return g, err
	}
	return Group{Sockets: []*handle.Handle{h}, Addr: addr, Lack: errs.NotSupported}, nil
}

// ByChance returns nil: there are no programs here.
func ByChance(int) []Instruction { return nil }

// ByClient returns nil: there are no programs here.
func ByClient(int) []Instruction { return nil }

// Traffic tells that a connection has come to one of some listening sockets: here never.
type Traffic struct{}

// NewTraffic fails.
func NewTraffic() (*Traffic, error) { return nil, errs.NotSupported }

// Add fails.
func (*Traffic) Add(*handle.Handle) error { return errs.NotSupported }

// Remove returns 0.
func (*Traffic) Remove(*handle.Handle) (left int) { return 0 }

// Wait returns at once.
func (*Traffic) Wait() bool { return false }

// After fails.
func (*Traffic) After(time.Duration) error { return errs.NotSupported }

// Rest fails.
func (*Traffic) Rest() error { return errs.NotSupported }

// Waiting does not call fn.
func (*Traffic) Waiting(func(fd int)) {}

// Close does nothing.
func (*Traffic) Close() {}

// Merged accepts from several sockets as if they were one listener: here from none.
type Merged struct{}

// NewMerged fails.
func NewMerged() (*Merged, error) { return nil, errs.NotSupported }

// Add fails.
func (*Merged) Add(int, *handle.Handle) error { return errs.NotSupported }

// Remove does nothing.
func (*Merged) Remove(int) {}

// Accept fails.
func (*Merged) Accept() (net.Conn, error) { return nil, errs.NotSupported }

// SetDeadline fails.
func (*Merged) SetDeadline(time.Time) error { return errs.NotSupported }

// Close does nothing.
func (*Merged) Close() error { return nil }

// Len returns 0.
func (*Merged) Len() int { return 0 }

// SyscallConn fails.
func (*Merged) SyscallConn() (syscall.RawConn, error) { return nil, errs.NotSupported }

// MergedPackets reads from several sockets of one UDP address as if they were one: here from
// none.
type MergedPackets struct{ *net.UDPConn }

// NewMergedPackets fails.
func NewMergedPackets(*handle.Handle, func()) (*MergedPackets, error) { return nil, errs.NotSupported }

// Add fails.
func (*MergedPackets) Add(int, *handle.Handle) error { return errs.NotSupported }

// Remove does nothing.
func (*MergedPackets) Remove(int) {}
