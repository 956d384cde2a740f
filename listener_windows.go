package cluster

import (
	"golang.org/x/sys/windows"

	"github.com/go-cluster/cluster/internal/drain"
	"github.com/go-cluster/cluster/internal/socket"
)

// addressInUse is what programs say of an address that somebody else has.
var addressInUse = windows.WSAEADDRINUSE.Error()

// A drain keeps what the connections of a shared socket can do, which are none of
// package net's here.
var _ drain.StreamConn = (*socket.Conn)(nil)

// uid is the user as whom this process opens sockets: users have no numbers here.
func uid() int { return -1 }

// whoOpens says in an error message who opens the sockets of the workers.
func whoOpens(int) string { return "the master opens it" }

// isOther reports whether workers run as another user than this process.
func (c *Credential) isOther() bool { return false }
