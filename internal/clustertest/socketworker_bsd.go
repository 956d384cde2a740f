//go:build unix && !linux

package clustertest

import (
	"net"
)

func socketProtocol(uintptr) int { return -1 }

// SocketBacklog is not told by the system.
func SocketBacklog(uintptr) int { return -1 }

func connSettings(net.Conn) string { return "-" }
