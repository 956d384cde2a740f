//go:build !linux

package systemd

import "net"

// CanStore says that there is a service manager that can keep descriptors.
const CanStore = false

func writeWith(*net.UnixConn, string, []int) {}

// CloseSocket is not called.
func CloseSocket(int) {}
