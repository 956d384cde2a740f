//go:build !linux

package systemd

import "github.com/go-cluster/cluster/internal/errs"

// CanHear reports whether a program can tell this one how it is: here nobody says who
// has sent a datagram.
const CanHear = false

// Inbox is of no use here: there is none.
type Inbox struct{}

// NewInbox returns an error.
func NewInbox() (*Inbox, error) { return nil, errs.NotSupported }

// Address is "".
func (*Inbox) Address() string { return "" }

// Serve returns.
func (*Inbox) Serve(func(pid int, n Notice)) {}

// Close does nothing.
func (*Inbox) Close() {}
