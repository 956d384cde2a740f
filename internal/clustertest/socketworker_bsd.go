//go:build unix && !linux

package clustertest

import (
	"net"
)

func socketProtocol(uintptr) int { return -1 }

// SocketBacklog returns -1: the system does not tell it.
func SocketBacklog(uintptr) int { return -1 }

func connSettings(net.Conn) string { return "-" }
