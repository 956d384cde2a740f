//go:build unix && !linux

package cluster_test

import (
	"net"
	"os/exec"
	"strings"
)

func socketProtocol(uintptr) int { return -1 }

func socketBacklog(uintptr) int { return -1 }

func connSettings(net.Conn) string { return "-" }

// isStopped reports whether SIGSTOP has come to the process.
func isStopped(pid int) bool {
	state, _ := exec.Command("ps", "-o", "state=", "-p", itoa(pid)).Output()
	return strings.HasPrefix(string(state), "T")
}
