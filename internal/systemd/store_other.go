//go:build !linux

package systemd

import "net"

// CanStore says that the service manager of this system can keep descriptors. Here there
// is none.
const CanStore = false

func writeWith(*net.UnixConn, string, []int) {}

// CloseSocket is not called.
func CloseSocket(int) {}
