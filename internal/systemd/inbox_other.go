//go:build !linux

package systemd

import (
	"context"

	"github.com/go-cluster/cluster/internal/errs"
)

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

// State is that of none.
func (*Inbox) State() InboxState { return InboxState{FD: -1} }

// RestoreInbox returns nil.
func RestoreInbox(InboxState) (*Inbox, error) { return nil, nil }

// Pause does nothing.
func (*Inbox) Pause(context.Context) error { return nil }

// Resume does nothing.
func (*Inbox) Resume() {}

// Close does nothing.
func (*Inbox) Close() {}
