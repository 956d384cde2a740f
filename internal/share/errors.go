package share

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/go-cluster/cluster/internal/socket"
)

// ListenFails is how every ListenError begins.
const ListenFails = "cluster: listen "

// ListenError returns the error of a Listen: the address, the cause and, unless it is "", a
// hint in parentheses. Errors of package net repeat the address, so only their cause is in the
// text. errors.Is finds the cause.
func ListenError(a socket.Address, err error, hint string) error {
	var why *socket.Reason
	if errors.As(err, &why) {
		err, hint = why.Cause, joined(why.Text, hint)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var errno syscall.Errno
	if errors.As(err, &errno) { // without "bind: "
		err = socket.PortableErrno(errno)
	}
	if hint != "" {
		hint = " (" + hint + ")"
	}
	return fmt.Errorf(ListenFails+"%s %s: %w%s", a.Network, a.Named, err, hint)
}

func joined(text, hint string) string {
	if hint == "" {
		return text
	}
	return text + "; " + hint
}
