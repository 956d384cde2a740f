//go:build unix && !linux

package cluster_test

import (
	"net"
)

func socketProtocol(uintptr) int { return -1 }

func socketBacklog(uintptr) int { return -1 }

func connSettings(net.Conn) string { return "-" }
