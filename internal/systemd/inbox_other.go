//go:build !linux

package systemd

import "github.com/go-cluster/cluster/internal/errs"

// CanHear says that a program can tell this one how it is. Here none can: the kernel does
// not tell who has sent a datagram.
const CanHear = false

// Inbox has no use here: NewInbox returns none.
type Inbox struct{}

// NewInbox returns errs.NotSupported.
func NewInbox() (*Inbox, error) { return nil, errs.NotSupported }

// Address is "".
func (*Inbox) Address() string { return "" }

// Serve returns.
func (*Inbox) Serve(func(pid int, n Notice)) {}

// Close does nothing.
func (*Inbox) Close() {}
